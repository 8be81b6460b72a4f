"""Tests of the creation of jobs, and of what is recorded when they are resumed."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.composed_jobs import base, begin, contents, plan_of, provenance, seeds
from support.runs import is_own

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study


def test_create_jobs(tmp_path: Path) -> None:
    jobs = begin(tmp_path / "s", [0, 1])
    assert [job.name for job in jobs] == ["0000_seed-0", "0001_seed-1"]
    study = Study.load_own(tmp_path / "s")
    assert [(job.number, job.directory, job.point) for job in study.records] == [
        (0, "0000_seed-0", {"seed": "0"}), (1, "0001_seed-1", {"seed": "1"}),
    ]  # fmt: skip
    record, run = study.jobs()[1]
    assert run.read_config() == jobs[1].config == base(seed=1)
    assert study.known_jobs[record.identity] == (1, "0001_seed-1")
    assert is_own(run)
    assert sorted(path.name for path in (run.path / ".hydra").iterdir()) == [
        "config.yaml", "hydra.yaml", "overrides.yaml",
    ]  # fmt: skip
    provenance_of_job = run.read_json(run.provenance)
    assert provenance_of_job["command"] == ["litlab", "train", "seed=1"]
    assert provenance_of_job["study"] == {"name": "s", "number": 1}
    assert study.plan == plan_of([0, 1], tmp_path)


def test_the_same_command_changes_nothing(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0, 1])
    before = contents(tmp_path / "s")
    assert [job.number for job in begin(tmp_path / "s", [0, 1])] == [0, 1]
    assert contents(tmp_path / "s") == before


def test_values_of_an_axis_may_be_added_and_left_out(tmp_path: Path) -> None:
    begin(tmp_path / "s", [5, 6])
    jobs = begin(tmp_path / "s", [7, 6])
    assert [job.number for job in jobs] == [2, 1]
    study = Study.load_own(tmp_path / "s")
    assert [record.directory for record in study.records] == ["0000_seed-5", "0001_seed-6", "0002_seed-7"]
    assert study.plan is not None
    assert study.plan.axes == {"seed": ["5", "6", "7"]}
    assert study.next_number == 3


def test_allowed_changes_of_an_unfinished_job_are_recorded(tmp_path: Path) -> None:
    done, waiting = begin(tmp_path / "s", [0, 1])
    write_result(done.run, Result(RunStatus.COMPLETED, ""))
    before = done.run.config.read_bytes()
    jobs = begin(tmp_path / "s", [0, 1], trainer__devices=2, threads=None)
    config = waiting.run.read_config()
    assert (config["trainer"]["devices"], config["threads"]) == (2, 1), "an open number of threads stays what it was"
    assert jobs[1].config == config
    assert is_own(waiting.run)
    (entry,) = waiting.run.read_json(waiting.run.provenance)["resumed"]
    assert entry["changed"] == {"trainer.devices": [1, 2]}
    assert not (waiting.run.path / ".lock").read_text()
    assert done.run.config.read_bytes() == before
    begin(tmp_path / "s", [0, 1], threads=2)
    assert waiting.run.read_config()["threads"] == 2


def test_a_job_that_was_prolonged_by_resume_keeps_its_config(tmp_path: Path) -> None:
    from litlab.cli import resume

    (job,) = begin(tmp_path / "s", [0])
    resume.prepare(job.run, resume.parse_options([str(job.run.path), "trainer.max_epochs=9"]), ["litlab", "resume"])
    assert begin(tmp_path / "s", [0])[0].config["trainer"]["max_epochs"] == 9


def test_an_unfinished_untrusted_job_is_not_signed(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    job.run.log.touch()
    job.run.provenance.write_text(json.dumps({"project": "/elsewhere"}))
    with pytest.raises(UserError, match="can't be continued as yours: its signature is not yours"):
        begin(tmp_path / "s", [0], trainer__devices=2)
    assert not is_own(job.run)


def test_a_damaged_job_that_has_not_begun_is_created_again(tmp_path: Path) -> None:
    first, second = begin(tmp_path / "s", [0, 1])
    first.run.config.write_text("")  # as after a power cut
    (second.run.path / ".signature").unlink()
    begin(tmp_path / "s", [0, 1])
    for job in (first, second):
        assert is_own(job.run)
        assert job.run.read_config() == job.config
    assert len(Study.load_own(tmp_path / "s").records) == 2


def test_unrecorded_directories_are_removed_unless_they_hold_other_files(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    orphan = tmp_path / "s" / "0001_lr-3"
    RunDirectory.create(orphan, "seed: 0\n", {})
    again = tmp_path / "s" / "2026-01-31_12-00-00_1a2b3c"
    RunDirectory.create(again, "seed: 0\n", {})
    begin(tmp_path / "s", [0, 1])
    assert not orphan.exists()
    assert again.exists()
    in_the_way = RunDirectory.create(tmp_path / "s" / "0002_seed-2", "seed: 0\n", {})
    in_the_way.metrics.write_text("epoch,step,metric,value\n")
    with pytest.raises(UserError, match="0002_seed-2 is the directory of the next job, but holds unknown"):
        begin(tmp_path / "s", [0, 1, 2])
    assert in_the_way.metrics.exists()
    assert len(Study.load_own(tmp_path / "s").records) == 2


def test_a_job_in_use_is_not_changed(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    with directory_lock(job.run.path), pytest.raises(UserError, match="0000_seed-0 is in use by process"):
        begin(tmp_path / "s", [0], trainer__devices=2)
    assert job.run.read_config()["trainer"]["devices"] == 1


def test_resumed_jobs_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    done, stopped, failed, _, running = (job.run for job in begin(path, range(5)))
    write_result(done, Result(RunStatus.COMPLETED, ""))
    write_result(stopped, Result(RunStatus.INTERRUPTED, ""))
    write_result(failed, Result(RunStatus.FAILED, ""))
    study = Study.load_own(path)
    with study.lock(), directory_lock(running.path):
        study.write_plan(plan_of(range(5), tmp_path))
        create_jobs(study, seeds(study, range(5)), provenance(tmp_path) | {"code": {"commit": "another"}})
    entries = [run.read_json(run.provenance).get("resumed", []) for _, run in study.jobs()]
    assert [len(entry) for entry in entries] == [0, 1, 1, 0, 0]
    assert (entries[1][0]["code"], entries[1][0]["changed"]) == ({"commit": "another"}, {})
    assert capsys.readouterr().err.count("note: the project's code has changed since") == 1


FORKING = """
import os, pickle, sys
from pathlib import Path
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study

plan, composed, provenance = pickle.loads(Path(sys.argv[1]).read_bytes())
while line := sys.stdin.readline():
    child = os.fork()
    if child:
        print(child, flush=True)
        sys.stdin.readline()  # until then the number is nobody else's
        os.waitpid(child, 0)
        continue
    study = Study.load_own(Path(line.strip()))
    check_compatible(study, plan, composed)
    with study.lock():
        study.write_plan(plan)
        create_jobs(study, composed, provenance)
    os._exit(0)
"""


def _num_jobs(study: Path) -> int:
    return len(list(study.glob("0*")))


def test_the_same_command_completes_a_study_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    values, numbers = range(40), random.Random(0)
    arguments = plan_of(values, tmp_path), seeds(Study.load_own(tmp_path / "0"), values), provenance(tmp_path)
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    command = [sys.executable, "-c", FORKING, str(tmp_path / "arguments")]
    kept = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for attempt in range(8):
            path = tmp_path / str(attempt // 2)
            server.stdin.write(f"{path}\n")
            child = int(server.stdout.readline())
            expected = numbers.randrange(len(values))
            while _num_jobs(path) < expected:
                time.sleep(1e-4)
            time.sleep(numbers.uniform(0, 1e-3))
            os.kill(child, signal.SIGKILL)
            server.stdin.write("killed\n")
            kept.append(_num_jobs(path))
        server.stdin.close()
    assert len(set(kept)) > 2, "they were killed at the same moment"
    for attempt in range(4):
        path = tmp_path / str(attempt)
        jobs = begin(path, values)
        assert [job.name for job in jobs] == [f"{number:04d}_seed-{number}" for number in values]
        assert [record.number for record in Study.load_own(path).records] == list(values)
        assert all(is_own(job.run) and job.run.read_config() == job.config for job in jobs)
        assert not list(path.rglob("*.tmp"))
