"""Ablations: the jobs of each combination of changes, contradictions, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from support.runs import TINY, compose_config, compose_master

from litlab.config.ablation import check_effects, expand_ablation, read_changes
from litlab.config.ablation_changes import names_in, quote_changes, variant_name
from litlab.config.identity import identity
from litlab.config.job_configs import ComposedJob, Point, compose_jobs
from litlab.errors import UserError
from litlab.testing import compose_config as compose_single_run

CHANGES = {
    "no_flip": ["data.flip=false"],
    "adamw": ["optimizer=adamw", "optimizer.lr=1e-3"],
    "small": ["model.hidden=[4]"],
}


def variants(changes: dict[str, list[str]], *, pairs: bool = False) -> list[tuple[str, ...]]:
    """Return the names of the changes of each job."""
    jobs = expand_ablation([["seed=0"]], changes, ["seed"], pairs=pairs).overrides
    return [names_in(job[-1].partition("=")[2]) for job in jobs]


def test_the_full_recipe_each_change_alone_and_all_together_times_the_grid() -> None:
    grid = expand_ablation([["seed=0"], ["seed=1"]], CHANGES, ["seed"], pairs=False)
    assert grid.notes == []
    assert grid.overrides == [
        ["seed=0", "study.ablation=[]"],
        ["seed=1", "study.ablation=[]"],
        ["seed=0", "data.flip=false", "study.ablation=[no_flip]"],
        ["seed=1", "data.flip=false", "study.ablation=[no_flip]"],
        ["seed=0", "optimizer=adamw", "optimizer.lr=1e-3", "study.ablation=[adamw]"],
        ["seed=1", "optimizer=adamw", "optimizer.lr=1e-3", "study.ablation=[adamw]"],
        ["seed=0", "model.hidden=[4]", "study.ablation=[small]"],
        ["seed=1", "model.hidden=[4]", "study.ablation=[small]"],
        *(
            [f"seed={seed}", "data.flip=false", "optimizer=adamw", "optimizer.lr=1e-3", "model.hidden=[4]",
             "study.ablation=[no_flip,adamw,small]"]
            for seed in (0, 1)
        ),
    ]  # fmt: skip


def test_pairs_and_all() -> None:
    one = {"no_flip": ["data.flip=false"]}
    two = one | {"small": ["model.hidden=[4]"]}
    assert variants(one) == [(), ("no_flip",)]
    assert variants(two) == variants(two, pairs=True) == [(), ("no_flip",), ("small",), ("no_flip", "small")]
    assert variants(CHANGES, pairs=True)[4:] == [
        ("no_flip", "adamw"), ("no_flip", "small"), ("adamw", "small"), ("no_flip", "adamw", "small"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("model.hidden=[2]", "a and b set model.hidden to different values"),
        ("model=resnet18", "a sets model.hidden and b sets model"),
    ],
)
def test_changes_that_contradict_each_other_are_not_combined(second: str, reason: str) -> None:
    changes = {"a": ["model.hidden=[4]"], "b": [second], "c": ["data.flip=false"]}
    assert variants(changes, pairs=True) == [(), ("a",), ("b",), ("c",), ("a", "c"), ("b", "c")]
    notes = expand_ablation([["seed=0"]], changes, ["seed"], pairs=True).notes
    assert notes == [f"study.ablate: {name} is left out, since {reason}" for name in ("a+b", "all")]
    assert variants(changes | {"b": ["model.hidden=[4]", "seed_=1"]})[-1] == ("a", "b", "c"), "equal values agree"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed=3", "a change is a part of the recipe, which seed is not"),
        ("study.name=x", "a change is a part of the recipe, which study is not"),
        ("hydra.launcher.jobs=1", "a change is a part of the recipe, which hydra is not"),
        ("data.flip=true,false", "a change has one value for each key"),
        ("optimizer.lr=0.1", "optimizer.lr is an axis of the multirun"),
        ("optimizer=adamw", "optimizer.lr is an axis of the multirun"),
        ("data.flip=[", "data.flip"),
    ],
)
def test_overrides_that_no_change_may_have(override: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem.replace("[", r"\[")):
        expand_ablation([["seed=0"]], {"a": [override]}, ["seed", "optimizer.lr"], pairs=False)


def test_a_change_sets_a_key_once() -> None:
    with pytest.raises(UserError, match=r"study.ablate.a: data.flip=true: the change sets data.flip twice"):
        variants({"a": ["data.flip=false", "data.flip=true"]})


@pytest.mark.parametrize("name", ["full", "all", "a+b", "a/b", "", "1", "true", "Null", "a b", "a,b", "a=b", 3])
def test_names_that_are_refused(name: object) -> None:
    with pytest.raises(UserError, match=r"^study.ablate: .* is no name for a change"):
        read_changes({name: ["data.flip=false"]})


@pytest.mark.parametrize("value", ["data.flip=false", [], ["data.flip"], [3], {"data.flip": False}])
def test_changes_of_another_form_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^study.ablate: a: .*\{no_flip: \[data.flip=false\]\}"):
        read_changes({"a": value})


def test_a_change_that_is_null_is_left_out() -> None:
    assert read_changes(None) == {}
    assert read_changes({"a": ["data.flip=false"], "b": None}) == {"a": ["data.flip=false"]}


def test_names_of_variants() -> None:
    assert [variant_name(names, ["a", "b", "c"]) for names in ([], ["a"], ["a", "c"], ["a", "b", "c"])] == [
        "full", "a", "a+c", "all",
    ]  # fmt: skip
    assert variant_name(["a"], ["a"]) == "a"


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("{no_flip:[data.flip=false]}", {"no_flip": ["data.flip=false"]}),
        ("{a:[optimizer=adamw, optimizer.lr=1e-3],b:[~schedule=x]}",
         {"a": ["optimizer=adamw", "optimizer.lr=1e-3"], "b": ["~schedule=x"]}),
        ("{a:[model.widths=[2,4],+x.y={p:1,q:[2]}]}", {"a": ["model.widths=[2,4]", "+x.y={p:1,q:[2]}"]}),
        ("{a:['model.widths=[2,4]', \"b=[c=1]\", d=2]}", {"a": ["model.widths=[2,4]", "b=[c=1]", "d=2"]}),
        ("{a:['model.widths=[2,4]']}", {"a": ["model.widths=[2,4]"]}),
        ("{a:[name='x,y']}", {"a": ["name='x,y'"]}),
        ("null", None),
    ],
)  # fmt: skip
def test_overrides_of_changes_need_no_quotes_on_the_command_line(typed: str, value: Any) -> None:
    for key in ("study.ablate", "+study.ablate"):
        (override,) = OverridesParser.create().parse_overrides([quote_changes(f"{key}={typed}")])
        assert override.value() == value
        assert override.get_key_element() == key


def test_other_arguments_stay_as_they_are() -> None:
    for argument in ("model.widths=[a=b]", "-m", "study.name=x", "study.ablate_pairs=true"):
        assert quote_changes(argument) == argument
    assert quote_changes("study.ablate.a=[x=1]") == "study.ablate.a=['x=1']"


def compose(loader: ConfigLoader, changes: dict[str, list[str]], *, pairs: bool = False) -> list[ComposedJob]:
    """Compose the jobs of an ablation of TINY with one seed."""
    texts = ",".join(f"{name}:[{','.join(lines)}]" for name, lines in changes.items())
    ablate = quote_changes(f"study.ablate={{{texts}}}")
    master = compose_master(loader, *TINY, ablate)
    jobs = expand_ablation([[*TINY, ablate, "seed=1"]], changes, ["seed"], pairs=pairs).overrides
    points = [Point.of(job, ["seed", "study.ablation"]) for job in jobs]
    return compose_jobs(loader, master, points, {}, 0, progress=False)


def effects(jobs: Sequence[ComposedJob], changes: dict[str, list[str]], *, pairs: bool = False) -> list[str]:
    names = [f"[{','.join(names)}]" for names in variants(changes, pairs=pairs)]
    points = [{"seed": "1", "study.ablation": name} for name in names]
    return check_effects([(point, job.identity) for point, job in zip(points, jobs, strict=True)])


def test_jobs_know_their_changes_and_are_the_same_runs_as_without_an_ablation(loader: ConfigLoader) -> None:
    jobs = compose(loader, CHANGES | {"no_schedule": ["schedule=null"]})
    assert [job.directory for job in jobs] == [
        f"{number:04d}_{name}_seed-1"
        for number, name in enumerate(["full", "no_flip", "adamw", "small", "no_schedule", "all"])
    ]
    assert [job.config["study"]["ablation"] for job in jobs][:3] == [[], ["no_flip"], ["adamw"]]
    assert all(job.config["study"]["swept"] == ["seed"] for job in jobs)
    assert jobs[2].config["study"]["ablate"]["adamw"] == ["optimizer=adamw", "optimizer.lr=1e-3"]
    assert jobs[4].config["schedule"] is None
    alone = compose_single_run(*TINY, "seed=1", "optimizer=adamw", "optimizer.lr=1e-3")
    assert jobs[2].identity == identity(alone)
    assert jobs[2].config | {"study": 0, "threads": 0} == alone | {"study": 0, "threads": 0}


def test_changes_without_an_effect_are_refused(loader: ConfigLoader) -> None:
    changes = {"flip": ["data.flip=true"], "a": ["model.hidden=[4]"], "b": ["model.hidden=[4]"], "c": ["threads=2"]}
    with pytest.raises(UserError) as caught:
        effects(compose(loader, changes), changes)
    without_effect = (
        "study.ablate.{0}: changes nothing that the results depend on: the full recipe is the same experiment; "
        "set a value that it does not have, or leave {0} out"
    )
    assert str(caught.value).splitlines() == [
        without_effect.format("flip"),
        "study.ablate.b: is the same experiment as a; leave one of the two out",
        without_effect.format("c"),
    ]


def test_combinations_that_add_nothing_share_a_run(loader: ConfigLoader) -> None:
    changes = {"a": ["model.hidden=[4]", "data.flip=false"], "b": ["model.hidden=[4]"]}
    jobs = compose(loader, changes)
    assert jobs[3] is jobs[1]
    assert effects(jobs, changes) == ["study.ablate: a+b is the same experiment as a, and gets no job"]


def test_an_ablation_is_a_multirun() -> None:
    with pytest.raises(UserError, match=r"^study.ablate: an ablation is a multirun of the grid sweeper.*: add -m"):
        compose_config(*TINY, quote_changes("study.ablate={a:[data.flip=false]}"))


def test_a_change_may_delete_a_group() -> None:
    assert read_changes({"a": ["~schedule"]}) == {"a": ["~schedule"]}
    assert variants({"a": ["~schedule"], "b": ["schedule=null"], "c": ["schedule=cosine"]})[-1] == ("c",), "contradicts"
    notes = expand_ablation([[]], {"a": ["~schedule"], "b": ["schedule=null"]}, [], pairs=False).notes
    assert notes == [], "both delete it"
