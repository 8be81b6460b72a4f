"""Stopping a run: real processes and signals. It ends at a sound moment, says so once, and leaves no process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import TINY

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

ENDLESS = (*TINY, "trainer.max_epochs=100000", "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=50")
START_UP = 120  # seconds; most of it is spent importing, while other tests do the same
SOON = 10  # seconds


class Training:
    """`litlab train` in a process of its own, which has begun to train."""

    def __init__(self, process: "subprocess.Popen[bytes]", run: RunDirectory) -> None:
        self.process = process
        self.run = run

    def workers(self) -> list[int]:
        """Everything that was started for this run, but the command itself."""
        found = subprocess.run(["pgrep", "-f", f"litlab.worker {self.run.path}"], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def ends(self) -> tuple[int, list[str]]:
        """Its exit code and what it says of the end."""
        return self.process.wait(timeout=SOON), self.said()

    def said(self) -> list[str]:
        return (self.run.path.parent / "said").read_text().splitlines()

    def status(self) -> tuple[str, str]:
        result = read_result(self.run)
        return result["status"], result["error"]


def has_begun(started: Training) -> bool:
    """Whether the first values are logged."""
    metrics = started.run.metrics
    return metrics.exists() and "train/loss" in metrics.read_text()


@contextmanager
def training(
    tmp_path: Path,
    *overrides: str,
    begun: Callable[[Training], bool] = has_begun,
    terminal: int | None = None,
) -> Iterator[Training]:
    """Train, and wait until it has begun; `terminal` becomes the one that the command is called in."""
    run = RunDirectory(tmp_path / "run")
    command = [sys.executable, "-m", "litlab", "train", *ENDLESS, *overrides, f"hydra.run.dir={run.path}"]
    if terminal is not None:  # the leader of a new session gets the first terminal that it opens
        adopt = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", adopt, *command]
    log = (tmp_path / "said").open("w+")
    with (
        log,
        subprocess.Popen(
            command, cwd=tmp_path, stdin=terminal, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        ) as process,
    ):
        started = Training(process, run)
        try:
            wait_until(lambda: process.poll() is not None or begun(started), START_UP)
            assert process.poll() is None, started.said()
            yield started
        finally:
            for pid in (process.pid, *started.workers()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def test_control_c_in_a_terminal_counts_once(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole foreground process group."""
    ours, theirs = os.openpty()
    try:
        with training(tmp_path, terminal=theirs) as started:
            os.write(ours, b"\x03")
            code, said = started.ends()
            assert code == 130
            assert said == [f"litlab: stopped by SIGINT; the run is in {started.run.path}"]
            assert started.status() == ("interrupted", "stopped by SIGINT")
            assert started.workers() == []
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_sigterm(num_ranks: int, tmp_path: Path) -> None:
    with training(tmp_path, f"trainer.devices={num_ranks}") as started:
        assert len(started.workers()) == (1 if num_ranks == 1 else 3)
        started.process.terminate()
        code, said = started.ends()
        assert code == 143
        assert said == [f"litlab: stopped by SIGTERM; the run is in {started.run.path}"]
        assert started.status() == ("interrupted", "stopped by SIGTERM")
        assert started.workers() == []


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Also a worker that can't answer the first one."""
    with training(tmp_path) as started:
        (worker,) = started.workers()
        os.kill(worker, signal.SIGSTOP)
        started.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert started.process.poll() is None
        started.process.send_signal(signal.SIGINT)
        code, said = started.ends()
        assert code == 130
        assert said == [f"litlab: stopped at once by SIGINT; the run is in {started.run.path}"]
        assert started.status() == ("interrupted", "stopped at once by SIGINT")
        assert started.workers() == []


def test_a_worker_does_not_outlive_its_controller(tmp_path: Path) -> None:
    with training(tmp_path) as started:
        started.process.kill()
        wait_until(lambda: not started.workers(), SOON)
        assert started.status()[0] == "interrupted"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_worker_starts(signum: int, tmp_path: Path) -> None:
    """Python would answer SIGINT with a traceback, before anything of ours is imported."""
    with training(tmp_path, begun=lambda started: bool(started.workers())) as started:
        started.process.send_signal(signum)
        code, said = started.ends()
        name = signal.Signals(signum).name
        assert code == 128 + signum
        assert said == [f"litlab: stopped by {name}; the run is in {started.run.path}"]
        assert started.status() == ("interrupted", f"stopped by {name}")
