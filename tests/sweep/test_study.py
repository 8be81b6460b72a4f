"""Tests of the files of a study: damaged, untrusted, locked, on a full disk."""

import json
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.composed_jobs import begin, create, plan_of, provenance, seeds

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import is_locked
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study

LIMIT = 16384  # bytes of the largest file; the records of 100 jobs need more, all else less


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
def test_damaged_records_are_refused(line: str, tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    with (tmp_path / "s" / "jobs.jsonl").open("a") as records:
        records.write(line + "\n")
    with pytest.raises(UserError, match=r"jobs\.jsonl is damaged"):
        Study.load(tmp_path / "s")


def test_an_untrusted_study_can_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path / "s", [0])
    (tmp_path / "s").rename(tmp_path / "moved")
    assert Study.load_own(tmp_path / "moved").records, "a moved one stays one's own"
    with monkeypatch.context() as others:
        others.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        with pytest.raises(UserError, match=r"study\.yaml is not signed by you: .* has no signing key"):
            Study.load_own(tmp_path / "moved")
        assert len(Study.load(tmp_path / "moved").records) == 1
    file = tmp_path / "moved" / "study.yaml"
    file.write_text(file.read_text().replace("data=shapes", "data=other"))
    with pytest.raises(UserError, match=r"or study\.yaml changed since it was signed"):
        Study.load_own(tmp_path / "moved")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{", "is damaged"),
        ("5", "has no key `format`"),
        ("format: 1", "its format is 1; this version of litlab reads format 3"),
        ("format: 3\nkind: grid", "expected the keys kind, axes"),
        ("format: 3\nbase: &a [*a]", "expected the keys"),
    ],
)
def test_a_damaged_plan_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        Study.load(tmp_path)


@pytest.mark.parametrize("value", ["3", "[a]", "[true]", "[0]", "[3, 3]", "[5, 3]", "null"])
def test_damaged_planned_seeds_are_refused(value: str, tmp_path: Path) -> None:
    plan = replace(plan_of([0, 1], tmp_path), planned_seeds=[2])
    (tmp_path / "study.yaml").write_text(plan.to_yaml().replace("planned_seeds:\n- 2\n", f"planned_seeds: {value}\n"))
    with pytest.raises(UserError, match=r"is damaged: .*; wrong or missing: planned_seeds"):
        Study.load(tmp_path)


@pytest.mark.parametrize(
    ("first", "later", "seeds_of_later", "expected"),
    [
        ([2], [2], [0, 1], [2]),
        ([2], [4], [0, 1, 2, 3], [2, 4]),
        ([2], [2], [2, 3], [2, 4]),  # with those of the first command
        ([20], [2], [2, 3], [20]),
        ([2, 4], [3], [0, 1, 2], [2, 4]),
        ([], [3], [0, 1, 2], [3]),
        (None, [3], [0, 1, 2], None),  # nobody knows what the first command planned
    ],
)
def test_planned_seeds_are_kept_and_larger_ones_added(
    first: list[int] | None, later: list[int], seeds_of_later: list[int], expected: list[int] | None, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    study = Study.load_own(path)
    create(study, replace(plan_of([0, 1], tmp_path), planned_seeds=first), seeds(study, [0, 1]))
    assert ("\nplanned_seeds:" in (path / "study.yaml").read_text()) == (first is not None)
    study = Study.load_own(path)
    create(study, replace(plan_of(seeds_of_later, tmp_path), planned_seeds=later), seeds(study, seeds_of_later))
    plan = Study.load_own(path).plan
    assert plan is not None
    assert plan.planned_seeds == expected


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
    for name, message in expected.items():
        with pytest.raises(UserError, match=rf"{name} {message}.*choose another study\.name"):
            Study.load_own(tmp_path / name)


def test_only_one_command_at_a_time_writes_a_study(tmp_path: Path) -> None:
    study, other = Study.load_own(tmp_path / "s"), Study.load_own(tmp_path / "s")
    with study.lock():
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()}"), other.lock():
            pass
        study.write_plan(plan_of([0], tmp_path))
        create_jobs(study, seeds(study, [0]), provenance(tmp_path))
        create_jobs(study, seeds(study, [0, 1]), provenance(tmp_path))
    with pytest.raises(UserError, match="was just changed by another command"), other.lock():
        pass


def test_the_controller_of_a_study_on_another_host_has_a_heartbeat(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    heartbeat, lock = study.path / ".heartbeat", study.path / ".lock"
    with study.lock():
        while not heartbeat.exists() or not heartbeat.stat().st_size:
            time.sleep(0.01)
        lock.write_text("process 1 on elsewhere")
        for file in (lock, heartbeat):
            assert is_locked(study.path)
            os.utime(file, (1, 1))
        assert not is_locked(study.path)
    assert not heartbeat.exists()


def test_a_full_disk_leaves_a_study_that_can_be_continued(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            begin(tmp_path / "s", range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "s" / "jobs.jsonl").stat().st_size == LIMIT, "a torn last line"
    jobs = begin(tmp_path / "s", range(100))
    assert [record.directory for record in Study.load_own(tmp_path / "s").records] == [job.name for job in jobs]


def test_a_study_stays_ones_own_if_its_plan_can_not_be_replaced(tmp_path: Path) -> None:
    """The signature of the next plan comes first, and the disk is full then; a kill between the two is the same."""
    begin(tmp_path / "s", [0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            begin(tmp_path / "s", [0, 1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(begin(tmp_path / "s", [0, 1])) == 2
