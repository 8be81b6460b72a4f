"""Stop a run with signals: it ends at a safe point with one message and leaves no process.

In a terminal, and where it is stopped while it starts, the command starts cold.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support.processes import is_stopped, processes_in, wait_until
from support.runs import TINY
from support.warm import WarmProcess

from litlab.process.controller import AWAIT_RUN
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

ENDLESS = (*TINY, "trainer.max_epochs=100000", "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=50")
START_UP = 120  # seconds; most of it is spent importing, while other tests do the same
SOON = 10  # seconds


class Training:
    """A `litlab train` process that has begun to train."""

    def __init__(self, process: "subprocess.Popen[bytes] | WarmProcess", run: RunDirectory, project: Path) -> None:
        self.process = process
        self.run = run
        self._project = project

    def workers(self) -> list[int]:
        """Return the processes of this run except the command itself."""
        return [pid for pid in processes_in(self._project) if pid != self.process.pid]

    def wait(self) -> int:
        """Return the exit code, and check that no worker is left."""
        code = self.process.wait(timeout=SOON)
        assert self.workers() == []
        return code

    def messages(self) -> list[str]:
        return (self._project / "stderr").read_text().splitlines()

    def status(self) -> tuple[str, str]:
        result = read_result(self.run)
        return result["status"], result["error"]

    def are_paused(self) -> list[bool]:
        """Return for the command and its workers whether each is paused."""
        return [is_stopped(pid) for pid in (self.process.pid, *self.workers())]

    def assert_saved(self, name: str) -> None:
        """Check that the message names the step at which it stopped, and that last.ckpt continues there."""
        status, error = self.status()
        assert status == "interrupted"
        step = re.fullmatch(rf"stopped by {name}, saved at step (\d+)", error)
        assert step, error
        assert self.messages() == [f"litlab: {error}; to continue: litlab resume {self.run.path.name}"]
        saved = torch.load(self.run.last, weights_only=False)
        assert saved["global_step"] == int(step[1]) > 0
        assert saved["optimizer_states"]


def has_logged(run: RunDirectory) -> bool:
    """Return whether the first values are logged."""
    return run.metrics.exists() and "train/loss" in run.metrics.read_text()


def has_cold_worker(run: RunDirectory) -> bool:
    """Return whether the command has given the run to a worker, which imports: it passes signals on since."""
    pids = [pid for pid in processes_in(run.path.parent) if AWAIT_RUN in psutil.Process(pid).cmdline()]
    return any(signal.SIGTERM in caught_signals(psutil.Process(pid).ppid()) for pid in pids)


def caught_signals(pid: int) -> set[int]:
    found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    mask = int(found[1], 16)
    return {signum for signum in range(1, signal.NSIG) if mask & 1 << signum - 1}


@contextmanager
def training(
    tmp_path: Path,
    *overrides: str,
    path: Path | None = None,
    has_begun: Callable[[RunDirectory], bool] = has_logged,
    terminal: int | None = None,
) -> Iterator[Training]:
    """Train, and wait until it has begun; `terminal` becomes the terminal of the command.

    The run is in `path`, by default run/. In a terminal, or with another `has_begun`, all starts cold.
    """
    run = RunDirectory(path or tmp_path / "run")
    command = ["litlab", "train", *ENDLESS, *overrides, f"hydra.run.dir={run.path}"]
    process: subprocess.Popen[bytes] | WarmProcess
    if terminal is None and has_begun is has_logged:
        process = WarmProcess(command, tmp_path, stderr=tmp_path / "stderr")
    else:
        process = cold_process([sys.executable, "-P", "-m", *command], tmp_path, terminal)
    started = Training(process, run, tmp_path)
    try:
        wait_until(lambda: process.poll() is not None or has_begun(run), START_UP)
        assert process.poll() is None, started.messages()
        yield started
    finally:
        for pid in processes_in(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def cold_process(command: list[str], folder: Path, terminal: int | None) -> "subprocess.Popen[bytes]":
    """Start the command in this session: in a session without this process, it could not be paused."""
    options: dict[str, Any] = {"process_group": 0}
    if terminal is not None:  # the leader of a new session gets the first terminal that it opens
        adopt = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", adopt, *command]
        options = {"start_new_session": True, "stdin": terminal}
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr, **options)


@pytest.mark.integrations
def test_control_c_in_a_terminal_counts_once_and_ends_a_multirun(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole foreground process group. No further job starts, by Hydra's launcher."""
    sweep = ("hydra.mode=MULTIRUN", "hydra/launcher=basic", "seed=0,1", "hydra.sweep.dir=.")
    sweep += ("hydra.sweep.subdir=${hydra.job.num}",)
    controlling, terminal = os.openpty()
    try:
        with training(tmp_path, *sweep, path=tmp_path / "0", terminal=terminal) as started:
            os.write(controlling, b"\x03")
            assert started.wait() == 130
            started.assert_saved("SIGINT")
            assert not (tmp_path / "1").exists()
    finally:
        os.close(controlling)
        os.close(terminal)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_sigterm(num_ranks: int, tmp_path: Path) -> None:
    """After a pause by Ctrl-Z; in a project with a file that is named like a module of Python's."""
    (tmp_path / "random.py").write_text("1 / 0\n")
    with training(tmp_path, f"trainer.devices={num_ranks}") as started:
        assert len(started.workers()) == (1 if num_ranks == 1 else 3)
        started.process.send_signal(signal.SIGTSTP)
        wait_until(lambda: all(started.are_paused()), SOON)
        started.process.send_signal(signal.SIGCONT)
        wait_until(lambda: not any(started.are_paused()), SOON)
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() == 143
        started.assert_saved("SIGTERM")


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Also a worker that can't answer the first one."""
    with training(tmp_path) as started:
        (worker,) = started.workers()
        os.kill(worker, signal.SIGSTOP)
        started.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert started.process.poll() is None
        started.process.send_signal(signal.SIGINT)
        assert started.wait() == 130
        assert started.messages() == ["litlab: stopped at once by SIGINT; to continue: litlab resume run"]
        assert started.status() == ("interrupted", "stopped at once by SIGINT")


def test_a_worker_does_not_outlive_its_controller(tmp_path: Path) -> None:
    with training(tmp_path) as started:
        started.process.kill()
        wait_until(lambda: not started.workers(), SOON)
        assert started.status()[0] == "interrupted"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_worker_starts(signum: int, tmp_path: Path) -> None:
    """Python would answer SIGINT with a traceback, before litlab is imported."""
    with training(tmp_path, has_begun=has_cold_worker) as started:
        started.process.send_signal(signum)
        name = signal.Signals(signum).name
        assert started.wait() == 128 + signum
        assert started.messages() == [f"litlab: stopped by {name}; to continue: litlab resume run"]
        assert started.status() == ("interrupted", f"stopped by {name}")


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
