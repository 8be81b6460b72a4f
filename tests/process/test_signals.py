"""Stop a run with signals: it ends at a safe point, says so once and leaves no process.

In a terminal, and where it is stopped while it starts, the command starts cold.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
import torch
from support.processes import is_stopped, processes_in
from support.runs import TINY, compose_config
from support.warm import WarmProcess

from litlab.config.config_file import to_yaml
from litlab.errors import RunFailed
from litlab.process.controller import run_worker
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

ENDLESS = (*TINY, "trainer.max_epochs=100000", "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=50")
START_UP = 120  # seconds; most of it is spent importing, while other tests do the same
SOON = 10  # seconds


class Training:
    """`litlab train` in a process of its own, which has begun to train."""

    def __init__(self, process: "subprocess.Popen[bytes] | WarmProcess", run: RunDirectory, project: Path) -> None:
        self.process = process
        self.run = run
        self._project = project

    def workers(self) -> list[int]:
        """Return the processes of this run, but the command itself."""
        return [pid for pid in processes_in(self._project) if pid != self.process.pid]

    def ends(self) -> tuple[int, list[str]]:
        """Return the exit code and what it prints of the end."""
        return self.process.wait(timeout=SOON), self.said()

    def said(self) -> list[str]:
        return (self.run.path.parent / "said").read_text().splitlines()

    def status(self) -> tuple[str, str]:
        result = read_result(self.run)
        return result["status"], result["error"]

    def pauses(self) -> list[bool]:
        """Return for the command and its workers whether each is paused."""
        return [is_stopped(pid) for pid in (self.process.pid, *self.workers())]

    def assert_saved(self, name: str) -> None:
        """Check that it says where it stopped, and that last.ckpt continues there."""
        status, error = self.status()
        assert status == "interrupted"
        step = re.fullmatch(rf"stopped by {name}, saved at step (\d+)", error)
        assert step, error
        assert self.said() == [f"litlab: {error}; the run is in {self.run.path}"]
        saved = torch.load(self.run.last, weights_only=False)
        assert saved["global_step"] == int(step[1]) > 0
        assert saved["optimizer_states"]


def has_begun(started: Training) -> bool:
    """Return whether the first values are logged."""
    metrics = started.run.metrics
    return metrics.exists() and "train/loss" in metrics.read_text()


def has_a_cold_worker(started: Training) -> bool:
    return (
        subprocess.run(["pgrep", "-f", f"litlab.training.worker {started.run.path}"], capture_output=True).returncode
        == 0
    )


@contextmanager
def training(
    tmp_path: Path,
    *overrides: str,
    path: Path | None = None,
    begun: Callable[[Training], bool] = has_begun,
    terminal: int | None = None,
) -> Iterator[Training]:
    """Train, and wait until it has begun; `terminal` becomes the one that the command is called in.

    The run is in `path`, by default run/. In a terminal, or with another `begun`, all starts cold.
    """
    run = RunDirectory(path or tmp_path / "run")
    command = ["litlab", "train", *ENDLESS, *overrides, f"hydra.run.dir={run.path}"]
    with (tmp_path / "said").open("w") as said:
        if terminal is None and begun is has_begun:
            process = WarmProcess(command, tmp_path, stderr=said.name)
        else:
            process = cold_process([sys.executable, "-P", "-m", *command], tmp_path, terminal, said)
    started = Training(process, run, tmp_path)
    try:
        wait_until(lambda: process.poll() is not None or begun(started), START_UP)
        assert process.poll() is None, started.said()
        yield started
    finally:
        for pid in processes_in(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def cold_process(
    command: list[str], folder: Path, terminal: int | None, said: IO[str]
) -> "subprocess.Popen[bytes] | WarmProcess":
    """Start the command with its errors in a file, in this session: in one without us nothing can be paused."""
    if terminal is not None:  # the leader of a new session gets the first terminal that it opens
        adopt = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", adopt, *command]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=terminal is not None,
        process_group=0 if terminal is None else None,
    )


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def test_control_c_in_a_terminal_counts_once_and_ends_a_multirun(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole foreground process group. No further job starts, by Hydra's launcher."""
    sweep = ("hydra.mode=MULTIRUN", "hydra/launcher=basic", "seed=0,1", "hydra.sweep.dir=.")
    sweep += ("hydra.sweep.subdir=${hydra.job.num}",)
    ours, theirs = os.openpty()
    try:
        with training(tmp_path, *sweep, path=tmp_path / "0", terminal=theirs) as started:
            os.write(ours, b"\x03")
            code, _ = started.ends()
            assert code == 130
            started.assert_saved("SIGINT")
            assert started.workers() == []
            assert not (tmp_path / "1").exists()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_sigterm(num_ranks: int, tmp_path: Path) -> None:
    """After a pause by Ctrl-Z; in a project with a file that is named like a module of Python's."""
    (tmp_path / "random.py").write_text("1 / 0\n")
    with training(tmp_path, f"trainer.devices={num_ranks}") as started:
        assert len(started.workers()) == (1 if num_ranks == 1 else 3)
        started.process.send_signal(signal.SIGTSTP)
        wait_until(lambda: all(started.pauses()), SOON)
        started.process.send_signal(signal.SIGCONT)
        wait_until(lambda: not any(started.pauses()), SOON)
        started.process.send_signal(signal.SIGTERM)
        code, _ = started.ends()
        assert code == 143
        started.assert_saved("SIGTERM")
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
    with training(tmp_path, begun=has_a_cold_worker) as started:
        started.process.send_signal(signum)
        code, said = started.ends()
        name = signal.Signals(signum).name
        assert code == 128 + signum
        assert said == [f"litlab: stopped by {name}; the run is in {started.run.path}"]
        assert started.status() == ("interrupted", f"stopped by {name}")


def test_outside_the_main_thread_a_worker_is_only_a_process(tmp_path: Path) -> None:
    """Python lets no other thread handle signals; a launcher may call a job in one. And a failure before the start."""
    config = compose_config(*TINY)
    run = RunDirectory.create(tmp_path / "run", to_yaml(config | {"format": 1}), {})
    with ThreadPoolExecutor() as pool:
        error = pool.submit(run_worker, run, config, keep=False).exception()
    assert isinstance(error, RunFailed)
    assert error.exit_code == 1
    assert read_result(run)["status"] == "failed"


IGNORED = """
import os, signal, time
from litlab.process.signals import Stopped, StopRequest

class Ends:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the handler is called

StopRequest().install()
try:
    Ends()
    time.sleep(60)
except Stopped as stopped:
    print(stopped)
"""


def test_a_signal_where_python_ignores_exceptions() -> None:
    """Python prints exceptions of `__del__` and of weak references' callbacks, and goes on; imports have such."""
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("SIGTERM\n", "")
