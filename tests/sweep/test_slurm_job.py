"""The program of a job, with a worker of a few lines and scripts in place of scontrol and srun."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import wait_until

from litlab.sweep.backends.slurm_job import ElementFiles, read_list, write_list

PROGRAM = """
import sys
from litlab.sweep.backends import slurm_job
slurm_job._WORKER = ("-c", sys.argv.pop())
slurm_job.REQUEUE_SECONDS = 20
sys.exit(slurm_job.main())
"""
PRINTS = (
    "import os, sys; print(sys.argv[1:], sorted(name for name in os.environ if name.startswith('SLURM'))); sys.exit({})"
)
SAVES = """
import signal, sys
warnings = (signal.SIGUSR1, signal.SIGUSR2)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals() - {*warnings})
signal.pthread_sigmask(signal.SIG_BLOCK, warnings)
open(sys.argv[1] + "/ready", "w")
signal.sigwait(warnings)
sys.exit(143)
"""

# As the real one: it answers SIGTERM by SIGKILL to its tasks, and SIGINT by a line of text.
SRUN = """
import signal, subprocess, sys
task = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda signum, frame: task.kill())
signal.signal(signal.SIGINT, lambda signum, frame: print("srun: interrupt (one more within 1 sec to abort)"))
for signum in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(signum, lambda signum, frame: task.send_signal(signum))
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
sys.exit(task.wait() % 256)
"""


class Element:
    """An element of an array with one run.

    Attributes:
        files: Its files.
    """

    def __init__(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, folder = study / "0000 with space", study / ".slurm"
        self.run.mkdir(parents=True)
        folder.mkdir()
        self.files = ElementFiles(folder, "abcd1234", 0)
        self._list = write_list(folder, "abcd1234", [self.run])
        self.calls = study / "calls"
        monkeypatch.setenv("PATH", str(study), prepend=os.pathsep)
        for name, value in (
            ("ARRAY_TASK_ID", "0"),
            ("JOB_ID", "7"),
            ("ARRAY_JOB_ID", "5"),
            ("PROCID", "0"),
            ("NTASKS", "1"),
        ):
            monkeypatch.setenv(f"SLURM_{name}", value)

    def install(self, name: str, script: str) -> None:
        """Install a command that records its arguments, then runs a line of shell."""
        command = self.calls.parent / name
        command.write_text(f'#!/bin/sh\necho {name} "$@" >> {self.calls}\n{script}\n')
        command.chmod(0o755)

    def start(self, worker: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(self._list), worker])

    def log(self) -> str:
        return (self.run / "run.log").read_text()


@pytest.fixture
def element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Element:
    return Element(tmp_path / "study", monkeypatch)


@pytest.mark.parametrize("code", [0, 1])
def test_a_worker_without_the_variables_of_slurm(element: Element, code: int) -> None:
    """From them, Lightning would take the one task of the job for the world."""
    assert element.start(PRINTS.format(code)).wait() == code
    assert element.log() == f"{[str(element.run)]} []\n"
    assert element.files.exit_code() == code
    assert element.files.num_starts() == 1


def test_the_exit_of_an_earlier_start_does_not_count(element: Element) -> None:
    element.files.record_exit(143)
    element.files.record_start()
    assert element.files.exit_code() is None
    assert element.files.num_starts() == 1


@pytest.mark.parametrize(("requeues", "code"), [(True, None), (False, 75)])
def test_a_warned_job_saves_and_returns_to_the_queue(element: Element, requeues: bool, code: int | None) -> None:
    """If SLURM refuses that, exit code 75 has it submitted again."""
    marker = element.files.folder / "abcd1234.0.requeued"
    element.install(
        "scontrol", f"cp '{marker}' '{element.calls.parent}/marker'; {'kill -TERM $PPID' if requeues else 'exit 1'}"
    )
    process = element.start(SAVES)
    wait_until((element.run / "ready").exists, 30)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == (-15 if requeues else 75)
    assert element.calls.read_text() == "scontrol requeue 5_0\n"
    assert (element.calls.parent / "marker").exists()
    assert element.files.exit_code() == code
    assert element.files.take_requeue() is requeues


def test_a_job_whose_run_is_in_use_waits_in_the_queue(element: Element) -> None:
    """As long as SLURM lets it wait: the other worker may be one on a node that SLURM has lost."""
    element.install("scontrol", "kill -TERM $PPID")
    assert element.start("raise SystemExit(75)").wait() == -15
    assert element.calls.read_text() == "scontrol requeue 5_0\n"
    assert element.files.exit_code() is None
    assert not element.files.take_requeue()


def test_on_several_nodes_srun_starts_the_ranks(element: Element, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    element.install("srun", 'shift 2; exec "$@"')
    assert element.start(PRINTS.format(0)).wait() == 0
    assert element.calls.read_text().startswith("srun --kill-on-bad-exit=1 --cpus-per-task=3 ")
    assert "SLURM_PROCID" in element.log()  # srun needs them


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_srun_gets_only_signals_that_it_passes_on(
    element: Element, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    element.install("scontrol", "exit 1")
    element.install("srun", f'shift 2; exec {shlex.join([sys.executable, "-c", SRUN])} "$@"')
    process = element.start(SAVES)
    wait_until((element.run / "ready").exists, 30)
    process.send_signal(signum)
    assert process.wait() == (75 if signum == signal.SIGUSR1 else 143)


def test_a_study_may_be_mounted_elsewhere(tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / ".slurm").mkdir(parents=True)
    write_list(study / ".slurm", "abcd1234", [study / "0000", study / "0001"])
    moved = study.rename(tmp_path / "moved")
    assert read_list(moved / ".slurm" / "abcd1234.list") == [moved / "0000", moved / "0001"]
    (tmp_path / "run" / ".slurm").mkdir(parents=True)
    assert read_list(write_list(tmp_path / "run" / ".slurm", "a", [tmp_path / "run"])) == [tmp_path / "run"]
