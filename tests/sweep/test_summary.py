"""Tests of the summary at the end of a multirun."""

from pathlib import Path

import pytest
from support.ended_jobs import failed, job, succeeded

from litlab.runs.directory import RunDirectory
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.summary import summarize


def test_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = [job(tmp_path / "outputs" / "study", f"{number:04}_seed-{number}", 0.5) for number in range(7)]
    outcomes = {number: succeeded(value) for number, value in enumerate((0.5, 0.7, 0.6, 0.1))}
    outcomes[4] = failed('  File "/my/net.py", line 3, in forward\n    return x\nValueError: no', "a \x1b[2Jb", "last")
    outcomes[5] = Outcome(RunStatus.KILLED, "killed by SIGKILL", (), {"objective": 0.99}, 1.0)

    lines = summarize(Path("outputs/study"), jobs, outcomes, signum=15)

    assert lines == [
        "",
        "stopped by SIGTERM: 7 jobs: 4 completed, 1 failed, 1 killed, 1 not started",
        "",
        "best by val/accuracy (max)",
        "  70.00 %  0001_seed-1",
        "  60.00 %  0002_seed-2",
        "  50.00 %  0000_seed-0",
        "",
        "0004_seed-4: failed",
        '    File "/my/net.py", line 3, in forward',
        "      return x",
        "  ValueError: no",
        "  | a  [2Jb",
        "  | last",
        "",
        "0005_seed-5: killed",
        "  killed by SIGKILL",
        "",
        "study        outputs/study",
        "jobs         litlab status outputs/study",
        "compare      litlab compare outputs/study",
        "continue     litlab resume outputs/study",
        "TensorBoard  litlab tensorboard outputs/study",
    ]


def test_summary_of_many_failures_and_of_a_single_success(tmp_path: Path) -> None:
    jobs = [job(tmp_path, f"{number:04}_x") for number in range(18)]

    lines = summarize(tmp_path, jobs, dict.fromkeys(range(18), failed("no")), signum=None)
    assert sum(line.endswith(": failed") for line in lines) == 10
    assert "and 8 more: 0010_x, 0011_x, 0012_x, 0013_x, 0014_x, ..." in lines

    lines = summarize(tmp_path, jobs[:1], {0: succeeded(0.5)}, signum=None)
    assert lines[1] == "1 job: 1 completed"
    assert not any("resume" in line or line.startswith("best") for line in lines)


def test_best_of_an_objective_that_is_minimized(tmp_path: Path) -> None:
    config = {"objective": {"metric": "val/loss", "mode": "min"}}
    jobs = [Job(number, RunDirectory(tmp_path / f"{number}"), config) for number in range(2)]

    lines = summarize(tmp_path, jobs, {0: succeeded(1.5), 1: succeeded(0.25)}, signum=None)

    assert lines[3:6] == ["best by val/loss (min)", "  0.2500  1", "  1.5000  0"]
