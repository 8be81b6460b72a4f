"""Multiruns with jobs that die in many ways, Ctrl-C, and a controller that is killed again and again."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.report import Tally, in_torture, times
from support.exact_resume import differences, outcome
from support.processes import is_stopped, processes_in, wait_until
from support.runs import TINY, call_cold, call_litlab
from support.thorough import THOROUGH
from support.warm import WarmProcess

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

SMALL = (*TINY, "name=tried", "study.name=mine")
SLOW = ("+callbacks.slow._target_=failing_jobs.SlowJob", "+callbacks.slow.seconds=0.05", "checkpoint.every_steps=2")
NUM_SLOW = 3  # jobs of a grid whose controller is killed: some 1.5 s each


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project folder with a module of the user."""
    shutil.copy(Path(__file__).with_name("failing_jobs.py"), tmp_path)
    return tmp_path


def jobs(study: Path, number: int) -> list[RunDirectory]:
    """Return the run directories of a grid over so many seeds."""
    return [RunDirectory(study / f"{seed:04d}_seed-{seed}") for seed in range(number)]


@pytest.mark.integrations
@pytest.mark.row("study of 20 jobs (3 raise, 2 exit early, 2 killed, 1 crashes, 1 hangs): each reported, 11 completed")
@pytest.mark.timeout(300)
def test_a_study_with_failing_jobs(project: Path, tally: Tally) -> None:
    failing = ("+callbacks.failing._target_=failing_jobs.FailingJob", "+callbacks.failing.seed=${seed}")
    axis = ("seed=range(20)", "hydra.launcher.timeout=10")
    done = call_litlab(project, "train", "-m", *SMALL, *failing, *axis, timeout=250)
    study = project / "outputs" / "mine"
    fault = ("failed", "a fault of the user's own")
    expected = {
        7: fault, 8: fault, 17: fault, 2: ("failed", "exit code 0"), 11: ("failed", "exit code 0"),
        3: ("killed", "SIGKILL"), 13: ("killed", "SIGKILL"), 5: ("crashed", "SIGSEGV"),
        0: ("timed_out", "stopped after"),
    }  # fmt: skip
    wrong = {}
    for number, run in enumerate(jobs(study, 20)):
        status, message = expected.get(number, ("completed", ""))
        result = read_result(run)
        if result["status"] != status or message not in (result["error"] or ""):
            wrong[number] = (result["status"], result["error"])
        reported = [line for line in done.stdout.splitlines() if run.path.name in line]
        assert number not in expected or any(message in line for line in reported), number
    tally.count(20 - len(wrong), 20)
    assert wrong == {}
    assert done.returncode == 1, done.stderr
    assert "in segfault" in done.stdout, "the end of the log of the one that crashed"
    assert "src/litlab" not in done.stderr
    assert not processes_in(project)


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """Create a control group of 400 MB, which only root can."""
    group = Path("/sys/fs/cgroup/memory/litlab-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(400_000_000))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.row("job killed by the kernel for lack of memory: reported as such, the others completed")
@in_torture
def test_out_of_memory(project: Path, little_memory: Path) -> None:
    eater = ("+callbacks.eater._target_=failing_jobs.MemoryEater", "+callbacks.eater.seed=${seed}")
    done = call_litlab(project, "train", "-m", *SMALL, *eater, f"+callbacks.eater.group={little_memory}", "seed=0,1,2")
    assert done.returncode == 1
    results = [read_result(run) for run in jobs(project / "outputs" / "mine", 3)]
    assert [result["status"] for result in results] == ["completed", "killed", "completed"]
    assert results[1]["error"] == "killed by the kernel: out of memory"


@pytest.mark.integrations
@pytest.mark.row(
    "Ctrl-Z and Ctrl-C in a multirun: all jobs pause; all save and end within 10 s; completed after resume"
)
@pytest.mark.timeout(200)
def test_ctrl_c(project: Path, tally: Tally) -> None:
    command = ("train", "-m", *SMALL, *SLOW, "seed=range(3)", "hydra.launcher.jobs=2")
    controller = _start(project, *command)
    runs = jobs(project / "outputs" / "mine", 3)
    wait_until(lambda: all((run.path / "starts").exists() for run in runs[:2]), 90)
    time.sleep(0.3)
    controller.send_signal(signal.SIGTSTP)
    workers = [int((run.path / ".lock").read_text().split()[1]) for run in runs[:2]]
    wait_until(lambda: all(is_stopped(pid) for pid in (controller.pid, *workers)), 20)
    controller.send_signal(signal.SIGCONT)
    wait_until(lambda: all(not is_stopped(pid) for pid in (controller.pid, *workers)), 20)
    controller.send_signal(signal.SIGINT)
    since = time.monotonic()
    controller.wait(60)
    seconds = time.monotonic() - since
    output = (project / "output").read_text()
    tally.count(int(seconds < 10), 1, f"{seconds:.1f} s")
    assert controller.returncode == 130, output
    assert seconds < 10
    assert "Traceback" not in output
    assert not processes_in(project)
    assert [read_result(run)["status"] for run in runs[:2]] == ["interrupted"] * 2
    assert all(run.last.exists() for run in runs[:2])
    assert not runs[2].result.exists()
    resumed = call_litlab(project, "resume", "outputs/mine")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [read_result(run)["status"] for run in runs] == ["completed"] * 3
    assert (runs[2].path / "starts").read_text() == "0\n"
    assert all(len((run.path / "starts").read_text().split()) == 2 for run in runs[:2]), "continued, not started again"


@pytest.mark.integrations
@pytest.mark.row("kill -9 of the controller at random moments of a grid: each job completed once, bit for bit")
@pytest.mark.timeout(600)
def test_kill_of_the_controller(project: Path, tally: Tally) -> None:
    """The same command is called again at once, while the jobs of the one before may still be saving."""
    command = ("train", "-m", *SMALL, *SLOW, f"seed=range({NUM_SLOW})", "hydra.launcher.jobs=2")
    since = time.monotonic()
    done = (call_cold if THOROUGH else call_litlab)(project, *command, timeout=300)
    seconds = time.monotonic() - since
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed = project / "outputs" / "undisturbed"
    (project / "outputs" / "mine").rename(undisturbed)
    draw, kills, moments = random.Random(0), times(1, 10), []
    while len(moments) < kills:
        before = _done_in(project)
        controller = _start(project, *command)
        moment = draw.uniform(0.1, 1.0) * seconds
        time.sleep(moment)
        if controller.poll() is None:
            moments.append(moment)
        controller.kill()
        controller.wait()
        assert before.items() <= _done_in(project).items(), "completed jobs are not changed"
        if len(_done_in(project)) == NUM_SLOW:  # completed before all kills: a new grid for the rest
            wait_until(lambda: not processes_in(project), 20)
            _assert_equal(project, undisturbed)
            (project / "outputs" / "mine").rename(project / f"completed-{time.monotonic_ns()}")
    done = call_litlab(project, *command, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    tally.count(len(moments), kills, "after " + ", ".join(f"{moment:.1f}" for moment in moments) + " s")
    _assert_equal(project, undisturbed)


def _assert_equal(project: Path, undisturbed: Path) -> None:
    mine = project / "outputs" / "mine"
    runs = jobs(mine, NUM_SLOW)
    assert {path for path in mine.iterdir() if path.is_dir()} - {mine / "summary"} == {run.path for run in runs}
    lines = [json.loads(line) for line in (mine / "jobs.jsonl").read_text().splitlines()]
    assert [(line["number"], line["directory"]) for line in lines] == [(n, run.path.name) for n, run in enumerate(runs)]
    for run, expected in zip(runs, jobs(undisturbed, NUM_SLOW), strict=True):
        assert not differences(outcome(expected), outcome(run)), run.path.name


def _done_in(project: Path) -> dict[str, float]:
    """Return the time at which each completed job ended, by its directory."""
    results = (project / "outputs" / "mine").glob("*/result.json")
    return {path.parent.name: path.stat().st_mtime for path in results if json.loads(path.read_text())["objective"]}


def _start(project: Path, *arguments: str) -> "WarmProcess | subprocess.Popen[bytes]":
    """Start a command, with its output in the file `output`; in torture in a new interpreter."""
    output = project / "output"
    with output.open("w") as file:  # emptied
        if THOROUGH:
            command = [sys.executable, "-m", "litlab", *arguments]
            return subprocess.Popen(command, cwd=project, stdout=file, stderr=file, process_group=0)
    return WarmProcess(["litlab", *arguments], project, stdout=output, stderr=output)
