"""A study on the disk: its jobs keep their numbers and directories, and no command makes another study of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed_jobs import base, begin, jobs_of, plan_of, provenance, search_of, seeds

from litlab.errors import UserError
from litlab.runs.files import write_json
from litlab.runs.result import Result, write_result
from litlab.runs.signature import is_own
from litlab.runs.state import RunStatus
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Plan, Study


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_jobs_get_directories_and_records(tmp_path: Path) -> None:
    jobs = begin(tmp_path / "s", [0, 1])
    assert [job.name for job in jobs] == ["0000_seed-0", "0001_seed-1"]
    study = Study.load_own(tmp_path / "s")
    assert [(each.number, each.directory, each.point) for each in study.records] == [
        (0, "0000_seed-0", {"seed": "0"}),
        (1, "0001_seed-1", {"seed": "1"}),
    ]
    record, run = study.jobs()[1]
    assert run.read_config() == jobs[1].config == base(seed=1)
    assert study.known_jobs[record.identity] == (1, "0001_seed-1")
    assert is_own(run)
    assert sorted(path.name for path in (run.path / ".hydra").iterdir()) == [
        "config.yaml", "hydra.yaml", "overrides.yaml",
    ]  # fmt: skip
    known = run.read_json(run.provenance)
    assert known["command"] == ["litlab", "train", "seed=1"]
    assert known["study"] == {"name": "s", "number": 1}
    assert study.plan == plan_of([0, 1], tmp_path)
    assert yaml.safe_load((tmp_path / "s" / "study.yaml").read_text())["format"] == 2


def test_the_same_command_changes_nothing(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0, 1])
    before = contents(tmp_path / "s")
    assert [job.number for job in begin(tmp_path / "s", [0, 1])] == [0, 1]
    assert contents(tmp_path / "s") == before


def test_an_axis_may_grow_and_shrink(tmp_path: Path) -> None:
    begin(tmp_path / "s", [5, 6])
    jobs = begin(tmp_path / "s", [7, 6, 7])
    assert [job.number for job in jobs] == [2, 1, 2]
    study = Study.load_own(tmp_path / "s")
    assert [each.directory for each in study.records] == ["0000_seed-5", "0001_seed-6", "0002_seed-7"]
    assert study.plan is not None
    assert study.plan.axes == {"seed": ["5", "6", "7"]}
    assert study.next_number == 3


def test_a_fixed_value_that_became_an_axis(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    study = Study.load_own(tmp_path / "s")
    configs = [base(seed=0), base(seed=0, optimizer__lr=0.5)]
    points = [{"seed": "0", "optimizer.lr": text} for text in ("0.05", "0.5")]
    composed = jobs_of(study, configs, points)
    plan = replace(plan_of([0], tmp_path), axes={"seed": ["0"], "optimizer.lr": ["0.05", "0.5"]})
    check_compatible(study, plan, composed)
    grown = [*composed[1:], *jobs_of(study, [base(seed=3)], [{"seed": "3", "optimizer.lr": "0.05"}])]
    check_compatible(study, plan, grown)


def test_a_changed_fixed_value_is_refused_with_what_changed(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0, 1])
    before = contents(tmp_path / "s")
    with pytest.raises(UserError) as refused:
        begin(tmp_path / "s", [0, 1], data__batch_size=8)
    assert str(refused.value).splitlines() == [
        f"{tmp_path / 's'} is another study, what is fixed in it has changed:",
        "  data.batch_size: 16 -> 8",
        "choose another study.name for it, or give what was there before",
    ]
    assert contents(tmp_path / "s") == before
    begin(tmp_path / "s", [0, 1], trainer__devices=2)  # where, not what


def test_a_swept_group_may_stand_for_anything_but_not_for_something_else_later(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    plan = replace(plan_of([], tmp_path), axes={"+model@model": ["small", "large"]})
    configs = [base(), base(model__hidden=[4])]
    composed = jobs_of(study, configs, [{"model": "small"}, {"model": "large"}])
    with study.lock():
        study.write_plan(plan)
        create_jobs(study, composed, provenance(tmp_path))
    again = Study.load_own(tmp_path / "s")
    other = jobs_of(again, [base(model__hidden=[2])], [{"model": "large"}])
    with pytest.raises(UserError, match=r"(?s)what 0001_model-large stands for.*model\.hidden: \[4\] -> \[2\]"):
        check_compatible(again, replace(plan, base=base(model__hidden=[2])), other)
    check_compatible(again, plan, jobs_of(again, [base(model__hidden=[2])], [{"model": "tiny"}]))


def test_what_is_fixed_in_a_swept_group_stays(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    said = ["-m", "model=cnn,resnet18", "model.hidden=[8]", "seed=0"]
    plan = replace(plan_of([], tmp_path), axes={"model": ["cnn", "resnet18"]}, arguments=said)
    with study.lock():
        study.write_plan(plan)
        create_jobs(study, jobs_of(study, [base()], [{"model": "cnn"}]), provenance(tmp_path))
    again = Study.load_own(tmp_path / "s")
    other = jobs_of(again, [base(seed=3, model__hidden=[4])], [{"model": "cnn", "seed": "3"}])
    for arguments in (["model.hidden=[4]"], []):
        now = replace(plan, base=base(model__hidden=[4]), axes=plan.axes | {"seed": ["3"]}, arguments=arguments)
        with pytest.raises(UserError, match=r"what is fixed in it has changed:\n  model\.hidden: \[8\] -> \[4\]"):
            check_compatible(again, now, other)


def asked(study: Study, values: list[int], root: str, swept: tuple[str, ...] = ("seed",)) -> tuple[Plan, list[Any]]:
    """A grid over seeds of images that lie somewhere."""
    study_of = {"name": "s", "swept": list(swept)}
    configs = [base(seed=value, data__root=root, study=study_of) for value in values]
    points = [{"seed": str(value)} | dict.fromkeys(swept[1:], root) for value in values]
    plan = replace(plan_of(values, study.path.parent, data__root=root), axes={key: [] for key in swept})
    return plan, jobs_of(study, configs, points)


def test_data_from_elsewhere_are_not_taken_for_the_same(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    plan, composed = asked(study, [0, 1], "/A")
    with study.lock():
        study.write_plan(plan)
        first, second = create_jobs(study, composed, provenance(tmp_path))
    check_compatible(study, *asked(study, [0, 1], "/B"))  # no job has read any yet
    write_json(first.run.dataset, {"fingerprint": "0123456789abcdef"})
    for values in ([0, 1], [0, 1, 2], [3]):
        check_compatible(study, *asked(study, values, "/A"))
        with pytest.raises(UserError) as refused:
            check_compatible(study, *asked(study, values, "/B"))
        said = str(refused.value)
        assert "data from elsewhere (fingerprint 0123456789ab):\n  data.root: /A -> /B\n" in said
        assert f"litlab resume {study.path} data.root=/B" in said
        check_compatible(study, *asked(study, values, "/B", ("seed", "data.root")))
        check_compatible(study, *asked(study, values, "/B", ("seed", "experiment")))
    moved = second.run.read_config()
    moved["data"]["root"] = "/B"  # as `litlab resume` does it, whose worker compares the data
    second.run.config.write_text(yaml.safe_dump(moved))
    write_json(second.run.dataset, {"fingerprint": "0123456789abcdef"})
    check_compatible(study, *asked(study, [0, 1, 2], "/B"))
    check_compatible(study, *asked(study, [0, 1, 2], "/A"))


def test_a_search_stays_with_its_data(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    with study.lock():
        study.write_plan(replace(search_of(tmp_path), base=base(data__root="/A")))
        (job,) = create_jobs(study, asked(study, [0], "/A")[1], provenance(tmp_path))
    write_json(job.run.dataset, {"fingerprint": "0123456789abcdef"})
    check_compatible(study, replace(search_of(tmp_path), base=base(data__root="/A")), [])
    with pytest.raises(UserError, match="data from elsewhere"):
        check_compatible(study, replace(search_of(tmp_path), base=base(data__root="/B")), [])


def test_a_search_is_no_grid_and_keeps_its_space(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    with study.lock():
        study.write_plan(search_of(tmp_path, space="interval(0,7)"))
    again = Study.load_own(tmp_path / "s")
    check_compatible(again, search_of(tmp_path), [])  # as long as there is no job, nothing is settled
    with again.lock():
        again.write_plan(search_of(tmp_path))
        assert again.plan == search_of(tmp_path)
        create_jobs(again, seeds(again, [0]), provenance(tmp_path))
    check_compatible(again, search_of(tmp_path, trials=50), [])
    for name, value in (("objectives", [{"metric": "val/loss", "mode": "min"}]), ("storage", "sqlite:///x.db")):
        other = search_of(tmp_path)
        with pytest.raises(UserError, match=rf"hydra\.sweeper\.{name}: not set -> "):
            check_compatible(again, replace(other, search=other.search | {name: value}), [])
    with pytest.raises(UserError, match=r"space of the search has changed:\n  optimizer\.lr: \['interval\(0,1\)'\] ->"):
        check_compatible(again, search_of(tmp_path, space="interval(0,2)"), [])
    with pytest.raises(UserError, match=r"s is a search, and this would be a grid"):
        check_compatible(again, plan_of([0], tmp_path), seeds(again, [0]))


def test_what_may_change_in_an_unfinished_job_is_written_down(tmp_path: Path) -> None:
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


def test_a_job_that_was_prolonged_goes_on_as_it_was_told(tmp_path: Path) -> None:
    from litlab.cli import resume

    (job,) = begin(tmp_path / "s", [0])
    resume.prepare(job.run, resume.parse_options([str(job.run.path), "trainer.max_epochs=9"]), ["litlab", "resume"])
    assert begin(tmp_path / "s", [0])[0].config["trainer"]["max_epochs"] == 9


def test_an_unfinished_job_of_somebody_elses_is_not_signed(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    job.run.log.touch()
    job.run.provenance.write_text(json.dumps({"project": "/elsewhere"}))
    with pytest.raises(UserError, match="can't be continued as yours: its signature is not yours"):
        begin(tmp_path / "s", [0], trainer__devices=2)
    assert not is_own(job.run)
