"""Multiruns in trouble: jobs that die in every way, Ctrl-C, and a controller that is killed again and again."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reliability.counting import Tally, times
from resuming.exact import differences, outcome
from support import TINY, call_litlab

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

SABOTEUR = '''
import ctypes, os, signal, sys, time
from pathlib import Path
from lightning.pytorch import Callback

HOW = {0: "raise", 2: "exit", 3: "kill", 5: "segfault", 7: "hang", 8: "raise", 11: "leave", 13: "kill", 17: "raise"}


def segfault():
    ctypes.string_at(0)


class Saboteur(Callback):
    """Ends the job of some seeds at the third step, each in its way."""

    def __init__(self, *, seed):
        self.how = HOW.get(seed, "")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            getattr(self, self.how or "nothing")()

    def nothing(self):
        pass

    def exit(self):
        sys.exit(0)

    def leave(self):
        os._exit(0)

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def segfault(self):
        segfault()

    def hang(self):
        while True:
            time.sleep(1)


def fail(self):
    raise ArithmeticError("a fault of the user's own")


setattr(Saboteur, "raise", fail)


class Slow(Callback):
    """Takes its time at each step, and notes that a step began: a job that is done twice would note all twice."""

    def __init__(self, *, seconds):
        self.seconds = seconds

    def on_train_start(self, trainer, pl_module):
        with Path(trainer.default_root_dir, "starts").open("a") as file:
            file.write(f"{trainer.global_step}\\n")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(self.seconds)
'''
SMALL = (
    *TINY, "name=tried", "study.name=mine",
    "callbacks.confusion_matrix=null", "callbacks.training_images=null", "callbacks.worst_mistakes=null",
)  # fmt: skip
SLOW = ("+callbacks.slow._target_=saboteur.Slow", "+callbacks.slow.seconds=0.05", "checkpoint.every_steps=2")
NUM_SLOW = 4  # jobs of a grid whose controller is killed: some 1.5 s each


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module of the user's own."""
    (tmp_path / "saboteur.py").write_text(SABOTEUR)
    return tmp_path


@pytest.mark.row("a study of 20 jobs: 3 raise, 2 exit early, 2 are killed, 1 crashes, 1 hangs: each told, 11 done")
@pytest.mark.timeout(300)
def test_a_sabotaged_study(project: Path, tally: Tally) -> None:
    saboteur = ("+callbacks.saboteur._target_=saboteur.Saboteur", "+callbacks.saboteur.seed=${seed}")
    axis = ("seed=range(20)", "hydra.launcher.timeout=10")
    done = call_litlab(project, "train", "-m", *SMALL, *saboteur, *axis, timeout=250)
    study = project / "outputs" / "mine"
    expected = {
        0: "a fault of the user's own", 8: "a fault of the user's own", 17: "a fault of the user's own",
        2: "exit code 0", 11: "exit code 0", 3: "SIGKILL", 13: "SIGKILL", 5: "SIGSEGV", 7: "stopped after",
    }  # fmt: skip
    results = {number: read_result(RunDirectory(study / f"{number:04d}_seed-{number}")) for number in range(20)}
    right = [
        number
        for number, result in results.items()
        if (result["status"] == "completed" and number not in expected)
        or (result["status"] == "failed" and number in expected and expected[number] in result["error"])
    ]
    tally.count(len(right), 20)
    assert right == list(range(20)), {n: (each["status"], each["error"]) for n, each in results.items()}
    assert done.returncode == 1, done.stderr
    for number, said in expected.items():
        assert any(f"{number:04d}_seed-{number}" in line and said in line for line in done.stdout.splitlines()), number
    assert "in segfault" in done.stdout, "the end of the log of the one that crashed"
    assert "src/litlab" not in done.stderr
    assert not _processes_of(project)


@pytest.mark.row("Ctrl-C in a multirun: all saved and gone within 10 s, then continued to the end")
@pytest.mark.timeout(200)
def test_ctrl_c(project: Path, tally: Tally) -> None:
    command = ("train", "-m", *SMALL, *SLOW, "seed=range(3)", "hydra.launcher.jobs=2")
    controller = _started(project, *command)
    runs = [RunDirectory(project / "outputs" / "mine" / f"{number:04d}_seed-{number}") for number in range(3)]
    _wait_until(lambda: all((run.path / "starts").exists() for run in runs[:2]), controller)
    time.sleep(0.3)
    controller.send_signal(signal.SIGINT)
    since = time.monotonic()
    said = controller.communicate(timeout=60)[0]
    seconds = time.monotonic() - since
    tally.count(int(seconds < 10), 1, f"{seconds:.1f} s")
    assert controller.returncode == 130, said
    assert seconds < 10
    assert "Traceback" not in said
    assert not _processes_of(project)
    assert [read_result(run)["status"] for run in runs[:2]] == ["interrupted"] * 2
    assert all(run.last.exists() for run in runs[:2])
    assert not runs[2].result.exists()
    resumed = call_litlab(project, "resume", "outputs/mine")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [read_result(run)["status"] for run in runs] == ["completed"] * 3
    assert (runs[2].path / "starts").read_text() == "0\n"
    assert all(len((run.path / "starts").read_text().split()) == 2 for run in runs[:2]), "continued, not begun anew"


@pytest.mark.row("kill -9 of the controller at random moments of a grid: every job done once, equal to the bit")
@pytest.mark.timeout(600)
def test_kill_of_the_controller(project: Path, tally: Tally) -> None:
    command = ("train", "-m", *SMALL, *SLOW, f"seed=range({NUM_SLOW})", "hydra.launcher.jobs=2")
    done = call_litlab(project, *command, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed = project / "outputs" / "undisturbed"
    (project / "outputs" / "mine").rename(undisturbed)
    draw, kills, moments = random.Random(0), times(2, 10), []
    while len(moments) < kills:
        before = _done_in(project)
        controller = _started(project, *command)
        moment = draw.uniform(1.0, 12.0)
        time.sleep(moment)
        if controller.poll() is None:
            moments.append(moment)
        controller.kill()
        controller.communicate()
        assert before.items() <= _done_in(project).items(), "what is done is not touched again"
        if len(_done_in(project)) == NUM_SLOW:  # through before the kills were: a fresh grid for the rest
            _assert_equal(project, undisturbed)
            (project / "outputs" / "mine").rename(project / f"through-{len(moments)}")
        _wait_until(lambda: not _processes_of(project), None, 20)
    done = call_litlab(project, *command, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    tally.count(len(moments), kills, "after " + ", ".join(f"{moment:.1f}" for moment in moments) + " s")
    _assert_equal(project, undisturbed)


def _assert_equal(project: Path, undisturbed: Path) -> None:
    mine = project / "outputs" / "mine"
    names = [f"{number:04d}_seed-{number}" for number in range(NUM_SLOW)]
    assert sorted(path.name for path in mine.iterdir() if path.is_dir()) == names
    lines = [json.loads(line) for line in (mine / "jobs.jsonl").read_text().splitlines()]
    assert [(each["number"], each["directory"]) for each in lines] == list(enumerate(names))
    for name in names:
        expected, found = (outcome(RunDirectory(study / name)) for study in (undisturbed, mine))
        assert not differences(expected, found), name


def _done_in(project: Path) -> dict[str, float]:
    """Directory of a job that is done -> when it was."""
    results = (project / "outputs" / "mine").glob("*/result.json")
    return {each.parent.name: each.stat().st_mtime for each in results if json.loads(each.read_text())["objective"]}


def _started(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "litlab", *arguments]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_until(
    condition: Callable[[], object], controller: "subprocess.Popen[str] | None", seconds: float = 90
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert controller is None or controller.poll() is None, controller.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _processes_of(project: Path) -> list[str]:
    return list(_each_process_of(project))


def _each_process_of(project: Path) -> Iterator[str]:
    """Processes that work in the project's folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == project.resolve() and (process / "stat").read_text().split()[2] != "Z":
                yield f"{process.name}: {(process / 'cmdline').read_text()}"
        except OSError:
            continue
