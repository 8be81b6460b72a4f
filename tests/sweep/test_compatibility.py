"""Tests of the compatibility of a command with an existing study."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed_jobs import base, begin, contents, create, jobs_of, plan_of, provenance, search_of, seeds

from litlab.errors import UserError
from litlab.runs.files import write_json
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Plan, Study


def test_a_fixed_value_may_become_an_axis(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0])
    study = Study.load_own(tmp_path / "s")
    configs = [base(seed=0), base(seed=0, optimizer__lr=0.5)]
    points = [{"seed": "0", "optimizer.lr": text} for text in ("0.05", "0.5")]
    composed = jobs_of(study, configs, points)
    plan = replace(plan_of([0], tmp_path), axes={"seed": ["0"], "optimizer.lr": ["0.05", "0.5"]})
    check_compatible(study, plan, composed)
    grown = [*composed[1:], *jobs_of(study, [base(seed=3)], [{"seed": "3", "optimizer.lr": "0.05"}])]
    check_compatible(study, plan, grown)


def test_a_changed_fixed_value_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "s", [0, 1])
    before = contents(tmp_path / "s")
    with pytest.raises(UserError) as refused:
        begin(tmp_path / "s", [0, 1], data__batch_size=8)
    assert str(refused.value).splitlines() == [
        f"{tmp_path / 's'} is another study with a different value of a fixed key:",
        "  data.batch_size: 16 -> 8",
        "choose another study.name, or use the previous values",
    ]
    assert contents(tmp_path / "s") == before
    begin(tmp_path / "s", [0, 1], trainer__devices=2)  # where, not what


def test_a_choice_of_a_swept_group_has_to_stay_the_same(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    plan = replace(plan_of([], tmp_path), axes={"+model@model": ["small", "large"]})
    configs = [base(), base(model__hidden=[4])]
    composed = jobs_of(study, configs, [{"model": "small"}, {"model": "large"}])
    create(study, plan, composed)
    again = Study.load_own(tmp_path / "s")
    other = jobs_of(again, [base(model__hidden=[2])], [{"model": "large"}])
    with pytest.raises(UserError, match=r"(?s)a different config of 0001_model-large.*model\.hidden: \[4\] -> \[2\]"):
        check_compatible(again, replace(plan, base=base(model__hidden=[2])), other)
    check_compatible(again, plan, jobs_of(again, [base(model__hidden=[2])], [{"model": "tiny"}]))


def test_a_fixed_value_in_a_swept_group_has_to_stay_the_same(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    given = ["-m", "model=cnn,resnet18", "model.hidden=[8]", "seed=0"]
    plan = replace(plan_of([], tmp_path), axes={"model": ["cnn", "resnet18"]}, arguments=given)
    create(study, plan, jobs_of(study, [base()], [{"model": "cnn"}]))
    again = Study.load_own(tmp_path / "s")
    other = jobs_of(again, [base(seed=3, model__hidden=[4])], [{"model": "cnn", "seed": "3"}])
    for arguments in (["model.hidden=[4]"], []):
        now = replace(plan, base=base(model__hidden=[4]), axes=plan.axes | {"seed": ["3"]}, arguments=arguments)
        with pytest.raises(UserError, match=r"a different value of a fixed key:\n  model\.hidden: \[8\] -> \[4\]"):
            check_compatible(again, now, other)


def grid_of(study: Study, values: list[int], root: str, swept: tuple[str, ...] = ("seed",)) -> tuple[Plan, list[Any]]:
    """Compose a grid over seeds, with images at `root`."""
    study_of = {"name": "s", "swept": list(swept)}
    configs = [base(seed=value, data__root=root, study=study_of) for value in values]
    points = [{"seed": str(value)} | dict.fromkeys(swept[1:], root) for value in values]
    plan = replace(plan_of(values, study.path.parent, data__root=root), axes={key: [] for key in swept})
    return plan, jobs_of(study, configs, points)


def test_data_from_another_place_are_refused(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    plan, composed = grid_of(study, [0, 1], "/A")
    first, second = create(study, plan, composed)
    check_compatible(study, *grid_of(study, [0, 1], "/B"))  # no job has read any yet
    write_json(first.run.dataset, {"fingerprint": "0123456789abcdef"})
    for values in ([0, 1], [0, 1, 2], [3]):
        check_compatible(study, *grid_of(study, values, "/A"))
        with pytest.raises(UserError) as refused:
            check_compatible(study, *grid_of(study, values, "/B"))
        message = str(refused.value)
        assert "data from another location (fingerprint 0123456789ab):\n  data.root: /A -> /B\n" in message
        assert f"litlab resume {study.path} data.root=/B" in message
        check_compatible(study, *grid_of(study, values, "/B", ("seed", "data.root")))
        check_compatible(study, *grid_of(study, values, "/B", ("seed", "experiment")))
    moved = second.run.read_config()
    moved["data"]["root"] = "/B"  # as `litlab resume` does it, whose worker compares the data
    second.run.config.write_text(yaml.safe_dump(moved))
    write_json(second.run.dataset, {"fingerprint": "0123456789abcdef"})
    check_compatible(study, *grid_of(study, [0, 1, 2], "/B"))
    check_compatible(study, *grid_of(study, [0, 1, 2], "/A"))


def test_data_of_a_search_from_another_place_are_refused(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    (job,) = create(study, replace(search_of(tmp_path), base=base(data__root="/A")), grid_of(study, [0], "/A")[1])
    write_json(job.run.dataset, {"fingerprint": "0123456789abcdef"})
    check_compatible(study, replace(search_of(tmp_path), base=base(data__root="/A")), [])
    with pytest.raises(UserError, match="data from another location"):
        check_compatible(study, replace(search_of(tmp_path), base=base(data__root="/B")), [])


def test_kind_space_and_objectives_of_a_search_have_to_stay_the_same(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match=r"a different search space:\n  optimizer\.lr: \['interval\(0,1\)'\] ->"):
        check_compatible(again, search_of(tmp_path, space="interval(0,2)"), [])
    with pytest.raises(UserError, match=r"s is a search, and this would be a grid"):
        check_compatible(again, plan_of([0], tmp_path), seeds(again, [0]))


def test_an_ablation_and_other_jobs_are_two_studies(tmp_path: Path) -> None:
    """The runs of a grid do not know that they would be those of the full recipe."""
    begin(tmp_path / "s", [0])
    study = Study.load_own(tmp_path / "s")
    composed = jobs_of(study, [base(seed=0)], [{"seed": "0", "study.ablation": "[]"}])
    plan = replace(plan_of([0], tmp_path), axes={"seed": ["0"], "study.ablation": ["[]"]})
    message = r"is no ablation, and this would be an ablation \(study.ablate\): choose another study.name"
    with pytest.raises(UserError, match=message):
        check_compatible(study, plan, composed)
    study = Study.load_own(tmp_path / "t")
    create(study, plan, composed)
    check_compatible(Study.load_own(tmp_path / "t"), plan, composed)
    with pytest.raises(UserError, match="is an ablation, and this would be no ablation"):
        begin(tmp_path / "t", [0, 1])
