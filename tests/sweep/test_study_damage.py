"""A study that is damaged, killed while it is written, somebody else's, or not there at all."""

import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.composed_jobs import begin, plan_of, provenance, seeds

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.signature import is_own
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study

LIMIT = 16384  # bytes of the largest file; the records of 100 jobs need more, all else less


def test_a_damaged_job_that_nobody_has_begun_is_made_anew(tmp_path: Path) -> None:
    first, second = begin(tmp_path / "s", [0, 1])
    first.run.config.write_text("")  # as after a power cut
    (second.run.path / ".signature").unlink()
    begin(tmp_path / "s", [0, 1])
    for job in (first, second):
        assert is_own(job.run)
        assert job.run.read_config() == job.config
    assert len(Study.load_own(tmp_path / "s").records) == 2


def test_what_a_killed_command_left_is_removed_but_nothing_of_anybody_else(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match="0002_seed-2 is the next job's place, but holds something"):
        begin(tmp_path / "s", [0, 1, 2])
    assert in_the_way.metrics.exists()
    assert len(Study.load_own(tmp_path / "s").records) == 2


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    file = tmp_path / "s" / "jobs.jsonl"
    with file.open("ab") as records:
        records.write(b'{"number": 1, "direc')
    assert len(Study.load_own(tmp_path / "s").records) == 1
    begin(tmp_path / "s", [0, 1])
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", '{"number": 1}', "[" * 100_000]
    + [
        json.dumps({"number": 1, "directory": name, "identity": "", "overrides": [], "point": {}})
        for name in ("/etc", "../other", "0000_seed-0", "", "x" * 300)
    ],
)
def test_damaged_records_are_named(line: str, tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    with (tmp_path / "s" / "jobs.jsonl").open("a") as records:
        records.write(line + "\n")
    with pytest.raises(UserError, match=r"jobs\.jsonl is damaged"):
        Study.load(tmp_path / "s")


def test_a_study_of_somebody_elses_can_be_looked_at_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path / "s", [0])
    (tmp_path / "s").rename(tmp_path / "moved")
    assert Study.load_own(tmp_path / "moved").records, "a moved one stays one's own"
    with monkeypatch.context() as others:
        others.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        with pytest.raises(UserError, match=r"study\.yaml is not signed by you: there is no key of yours"):
            Study.load_own(tmp_path / "moved")
        assert len(Study.load(tmp_path / "moved").records) == 1
    file = tmp_path / "moved" / "study.yaml"
    file.write_text(file.read_text().replace("data=shapes", "data=other"))
    with pytest.raises(UserError, match=r"or study\.yaml changed since it was signed"):
        Study.load_own(tmp_path / "moved")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{{", "is damaged"),
        ("5", "has no key `format`"),
        ("format: 1", "its format is 1; this version of litlab reads format 2"),
        ("format: 2\nkind: grid", "expected the keys kind, axes"),
        ("format: 2\nbase: &a [*a]", "expected the keys"),
    ],
)
def test_a_damaged_or_newer_plan_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(UserError, match=said):
        Study.load(tmp_path)


def test_other_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunDirectory.create(tmp_path / "run", "seed: 0\n", {})
    (tmp_path / "basic").mkdir()
    (tmp_path / "basic" / "multirun.yaml").touch()
    (tmp_path / "basic" / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "runs" / "a" / ".hydra").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    expected = {
        "run": "is the directory of a run", "basic": "holds runs of another launcher", "runs": "holds runs of another",
        "other": r"holds other things \(thesis\.tex\)", "file": "is a file",
    }  # fmt: skip
    for name, said in expected.items():
        with pytest.raises(UserError, match=rf"{name} {said}.*choose another study\.name"):
            Study.load_own(tmp_path / name)


def test_of_two_commands_one_holds_it_and_the_other_sees_what_it_did(tmp_path: Path) -> None:
    study, other = Study.load_own(tmp_path / "s"), Study.load_own(tmp_path / "s")
    with study.lock():
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()}"), other.lock():
            pass
        study.write_plan(plan_of([0], tmp_path))
        create_jobs(study, seeds(study, [0]), provenance(tmp_path))
        create_jobs(study, seeds(study, [0, 1]), provenance(tmp_path))
    with pytest.raises(UserError, match="was changed by another command a moment ago"), other.lock():
        pass


def test_a_job_in_use_is_not_changed(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    with directory_lock(job.run.path), pytest.raises(UserError, match="0000_seed-0 is in use by process"):
        begin(tmp_path / "s", [0], trainer__devices=2)
    assert job.run.read_config()["trainer"]["devices"] == 1


def test_a_full_disk_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            begin(tmp_path / "s", range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "s" / "jobs.jsonl").stat().st_size == LIMIT, "a torn last line"
    jobs = begin(tmp_path / "s", range(100))
    assert [each.directory for each in Study.load_own(tmp_path / "s").records] == [job.name for job in jobs]


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


def test_killed_at_any_moment_the_same_command_completes_it(tmp_path: Path) -> None:
    values, numbers = range(40), random.Random(0)
    asked = plan_of(values, tmp_path), seeds(Study.load_own(tmp_path / "0"), values), provenance(tmp_path)
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    start = time.monotonic()
    begin(tmp_path / "timed", values)
    usual = time.monotonic() - start
    command = [sys.executable, "-c", FORKING, str(tmp_path / "asked")]
    kept = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for attempt in range(8):
            path = tmp_path / str(attempt // 2)
            server.stdin.write(f"{path}\n")
            child = int(server.stdout.readline())
            time.sleep(numbers.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
            server.stdin.write("killed\n")
            kept.append(len(list(path.glob("0*"))))
        server.stdin.close()
    assert len(set(kept)) > 2, "they were killed at the same moment"
    for attempt in range(4):
        path = tmp_path / str(attempt)
        jobs = begin(path, values)
        assert [job.name for job in jobs] == [f"{number:04d}_seed-{number}" for number in values]
        assert [each.number for each in Study.load_own(path).records] == list(values)
        assert all(is_own(job.run) and job.run.read_config() == job.config for job in jobs)
        assert not list(path.rglob("*.tmp"))
