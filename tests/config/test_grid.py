"""Grids: the same jobs in the same order as Hydra's own sweeper, and paired axes."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from litlab.config.grid import expand_grid, params_with_references
from litlab.config.job_configs import Point
from litlab.errors import UserError


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=0,1,2"],
        ["optimizer.lr=0.1,1e-2", "seed=range(0,3)", "data=shapes"],
        ["model=glob(*,exclude=t*)", "optimizer=choice(sgd,adamw)"],
        ["seed=range(3)", "data.val_size=range(0.1,0.3,0.1)", "seed=7,8"],
        ["seed=0,1", "seed=5"],
        ["seed=5", "model=cnn", "seed=0,1"],
        ["model.widths=[2,4],[8]", "name='a,b',c", "+x={a:1},{a:2}", "++y=1,2", "~schedule"],
        ["seed=sort(3,1,2)", "task=null,image_classifier"],
        ["data=shapes"],
        [],
    ],
)
def test_the_jobs_are_those_of_hydras_sweeper(arguments: list[str], loader: ConfigLoader) -> None:
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    assert expand_grid(arguments, {}, [], loader) == expected


def test_command_line_replaces_axes_of_the_config(loader: ConfigLoader) -> None:
    jobs = expand_grid(["seed=3", "threads=1,2"], {"seed": "0,1", "optimizer.lr": 0.1, "objective": None}, [], loader)
    fixed = ["seed=3", "optimizer.lr=0.1", "objective=null"]
    assert jobs == [[*fixed, "threads=1"], [*fixed, "threads=2"]]


@pytest.mark.parametrize("paired", [["optimizer.lr", "x"], [["optimizer.lr", "x"]]])
def test_paired_axes_vary_together(paired: list[object], loader: ConfigLoader) -> None:
    jobs = expand_grid(["optimizer.lr=1,2", "seed=0,1", "+x=5,6"], {}, paired, loader)
    assert jobs == [
        ["optimizer.lr=1", "seed=0", "+x=5"],
        ["optimizer.lr=1", "seed=1", "+x=5"],
        ["optimizer.lr=2", "seed=0", "+x=6"],
        ["optimizer.lr=2", "seed=1", "+x=6"],
    ]


def test_two_groups_of_pairs(loader: ConfigLoader) -> None:
    jobs = expand_grid(["a=1,2", "b=1,2", "c=3,4", "d=3,4"], {}, [["a", "d"], ["c", "b"]], loader)
    assert [" ".join(job) for job in jobs] == [
        "a=1 b=1 c=3 d=3", "a=1 b=2 c=4 d=3", "a=2 b=1 c=3 d=4", "a=2 b=2 c=4 d=4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "paired", "message"),
    [
        (["seed=range(0,0)"], [], "seed=range(0,0): an empty axis"),
        (["model=glob(x*)"], [], "an empty axis, so there would be no job; known: cnn, resnet18, timm, torchvision"),
        (["seed=glob(*)"], [], "there is no group seed"),
        (["seed=range(0,2,0)"], [], "seed=range(0,2,0): "),
        (["optimizer.lr=interval(0,1)"], [], "an interval needs hydra/sweeper=search"),
        (["seed=0,1", "a=1,2,3"], ["seed", "a"], "seed has 2 values, a has 3 values"),
        (["seed=0,1", "a=1"], ["seed", "a"], "a is not swept; swept are seed"),
        (["optimizer.lr=0,1"], ["optimiser.lr"], "did you mean optimizer.lr"),
        (["seed=0,1", "a=1,2"], [["seed", "a"], ["seed"]], "seed occurs twice"),
        (["seed=0,1"], ["seed", ["seed"]], "expected keys"),
        (["seed=0,1"], [3], "expected keys"),
        (["seed=(0"], [], "cannot be read as an override"),
    ],
)
def test_invalid_axes_are_refused(
    arguments: list[str], paired: list[object], message: str, loader: ConfigLoader
) -> None:
    with pytest.raises(UserError) as refused:
        expand_grid(arguments, {}, paired, loader)
    assert message in str(refused.value)


def test_secrets_in_params_stay_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "hunter22")
    monkeypatch.setenv("PLACE", "https://me:hunter22@host/x")
    settings = OmegaConf.create(
        {"params": {"callbacks.x.token": "${oc.env:CANARY}", "+x.at": "${oc.env:PLACE}", "seed": "${n}"}, "n": "0,1"}
    )
    resolved = {"callbacks.x.token": "hunter22", "+x.at": "https://me:hunter22@host/x", "seed": "0,1"}
    assert params_with_references(resolved, settings) == {
        "callbacks.x.token": "${oc.env:CANARY}", "+x.at": "${oc.env:PLACE}", "seed": "0,1",
    }  # fmt: skip


def test_a_point_keeps_packages_apart_and_masks_secrets_in_its_text() -> None:
    point = Point.of(["+model@net1=cnn", "model@net2=resnet18", "model=cnn"], ["model@net1", "model@net2"])
    assert point.swept == {"model@net1": "cnn", "model@net2": "resnet18"}
    secret = Point.of(["+callbacks.x.api_key=hunter22", "seed=1"], ["callbacks.x.api_key", "seed"])
    assert str(secret) == "callbacks.x.api_key=*** seed=1"
