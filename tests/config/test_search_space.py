"""Search spaces in Hydra's grammar: dimensions, fixed values, conditions, problems."""

from collections.abc import Mapping
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader

from litlab.config.search_space import Choices, Dimension, Numbers, Space, parse_space
from litlab.errors import UserError

CHOSEN = {"optimizer": "sgd", "model": "cnn", "hydra/launcher": "pool"}


def parse(
    loader: ConfigLoader,
    *arguments: str,
    params: Mapping[str, Any] | None = None,
    conditional: Mapping[str, Any] | None = None,
) -> Space:
    return parse_space(loader, params, arguments, conditional, CHOSEN)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("tag(log,interval(1e-4,1))", Numbers(1e-4, 1.0, None, True)),
        ("interval(0.1,0.9)", Numbers(0.1, 0.9, None, False)),
        ("interval(1,8)", Numbers(1.0, 8.0, None, False)),
        ("int(interval(1,8))", Numbers(1, 8, 1, False)),
        ("tag(log,int(interval(1,1000)))", Numbers(1, 1000, 1, True)),
        ("range(16,129,16)", Numbers(16, 128, 16, False)),
        ("range(8,0,-2)", Numbers(2, 8, 2, False)),
        ("range(0.1,0.45,0.1)", Numbers(0.1, 0.4, 0.1, False)),
        ("0.1,0.01,0.1", Choices(("0.1", "0.01"))),
        ("choice([1,2],[3])", Choices(("[1,2]", "[3]"))),
        ("null,'a b'", Choices(("null", "'a b'"))),
    ],
)
def test_values_are_read_as_hydra_writes_them(loader: ConfigLoader, text: str, domain: Numbers | Choices) -> None:
    (dimension,) = parse(loader, f"optimizer.lr={text}").dimensions
    assert dimension.domain == domain
    assert type(getattr(dimension.domain, "low", None)) is type(getattr(domain, "low", None))
    assert dimension.expression == text


def test_a_glob_and_a_group_are_choices(loader: ConfigLoader) -> None:
    space = parse(loader, "model=glob(*n*)", "schedule=cosine,constant")
    assert space.dimensions[0].domain == Choices(("cnn", "resnet18", "torchvision", "whitened"))
    assert space.dimensions[1].domain == Choices(("cosine", "constant"))


def test_the_rest_is_fixed_and_the_command_line_wins(loader: ConfigLoader) -> None:
    params = {"seed": "choice(0,1)", "optimizer.lr": "interval(0,1)", "data": "shapes", "objective": None}
    space = parse(loader, "seed=3", "trainer=cpu", "~callbacks", "+optimizer.eps=1e-3,1e-4", params=params)
    assert space.fixed == ("seed=3", "data=shapes", "objective=null", "trainer=cpu", "~callbacks")
    assert space.axes == {"optimizer.lr": ["interval(0,1)"], "optimizer.eps": ["0.001", "0.0001"]}
    assert space.overrides({"+optimizer.eps": "1e-3"})[-1] == "+optimizer.eps=1e-3"
    assert space.examples()[0] == {"optimizer.lr": "0.5", "+optimizer.eps": "0.001"}


def test_floats_with_steps_have_no_noise(loader: ConfigLoader) -> None:
    points = parse(loader, "data.val_size=range(0.1,0.95,0.1)").points(20)
    assert points is not None
    assert [point["data.val_size"] for point in points] == [f"0.{digit}" for digit in range(1, 10)]


CONDITIONAL = {
    "optimizer=sgd": {"optimizer.lr": "choice(0.1,0.2)", "optimizer.momentum": "choice(0.8,0.9)"},
    "optimizer=adamw": {"optimizer.lr": "choice(0.001)"},
}


def test_conditional_dimensions_exist_only_where_the_condition_holds(loader: ConfigLoader) -> None:
    space = parse(loader, "optimizer=sgd,adamw", conditional=CONDITIONAL)
    assert [dimension.name for dimension in space.dimensions] == [
        "optimizer", "optimizer.lr (optimizer=sgd)", "optimizer.momentum", "optimizer.lr (optimizer=adamw)",
    ]  # fmt: skip
    points = space.points(10)
    assert points is not None
    assert points[-1] == {"optimizer": "adamw", "optimizer.lr": "0.001"}
    assert len(points) == 5
    assert all(("optimizer.momentum" in point) == (point["optimizer"] == "sgd") for point in points)
    assert space.points(4) is None


def test_a_condition_on_a_fixed_key_is_decided_at_once(loader: ConfigLoader) -> None:
    by_default = parse(loader, "seed=1,2", conditional=CONDITIONAL)
    assert [dimension.name for dimension in by_default.dimensions] == ["seed", "optimizer.lr", "optimizer.momentum"]
    assert all(dimension.condition is None for dimension in by_default.dimensions)
    chosen = parse(loader, "optimizer=adamw", conditional=CONDITIONAL)
    assert [dimension.key for dimension in chosen.dimensions] == ["optimizer.lr"]
    for fixed, condition in (("data.flip=true", "data.flip=True"), ("optimizer.lr=0.10", "optimizer.lr=1e-1")):
        same = parse(loader, fixed, conditional={condition: {"seed": "1,2"}})
        assert [dimension.key for dimension in same.dimensions] == ["seed"]


@pytest.mark.parametrize(
    ("arguments", "conditional", "message"),
    [
        (["seed=range(0,0)"], None, r"^seed=range\(0,0\): is empty"),
        (["model=glob(nothing*)"], None, r"^model=glob\(nothing\*\): is empty"),
        (["optimizer.lr=interval(1,1)"], None, "expected an interval from a lower to a higher number, found 1.0 and 1"),
        (["optimizer.lr=interval(2,1)"], None, "from a lower to a higher number, found 2.0 and 1.0"),
        (["optimizer.lr=tag(log,interval(0,1))"], None, r"tag\(log,...\) needs numbers above 0, found 0.0"),
        (["seed=tag(log,range(1,9,2))"], None, "with step 1, or an interval"),
        (["seed=tag(log,choice(1,9))"], None, "choices have no logarithm"),
        (["seed=tag(lgo,interval(1,9))"], None, "unknown tag lgo; known: log"),
        (["seed=range(1,9,0)"], None, "seed=range"),
        (["seed=1"], None, "there is nothing to search"),
        (["seed=1,("], None, "cannot be read as an override"),
        (
            ["seed=1,2"],
            {"optimiser=sgd": {"optimizer.lr": "1,2"}},
            "neither fixed nor searched.*did you mean optimizer",
        ),
        (["seed=interval(0,1)"], {"seed=1": {"optimizer.lr": "1,2"}}, "seed is neither fixed nor searched among"),
        (["optimizer=sgd,adamw"], {"optimizer=adam": {"optimizer.lr": "1,2"}}, "never adam; its values: sgd, adamw"),
        (["seed=1,2"], {"seed": {"optimizer.lr": "1,2"}}, "'seed': expected a choice and what is searched then"),
        (["seed=1,2"], {"seed=1": {"seed": "3,4"}}, "seed is searched already: 1,2"),
        (
            ["seed=1,2", "optimizer=sgd,adamw"],
            {"seed=1": {"optimizer.lr": "1,2"}, "optimizer=sgd": {"optimizer.lr": "3,4"}},
            "optimizer.lr is searched already: 1,2 where seed=1",
        ),
        (["seed=1,2"], {"optimizer=sdg": {"optimizer.lr": "1,2"}}, "optimizer is never sdg: it is sgd"),
        (
            ["seed=1,2", "data.flip=true"],
            {"data.flip=false": {"optimizer.lr": "1,2"}},
            "data.flip is never False: it is True",
        ),
        (["seed=1,2"], {"seed=1,2": {"optimizer.lr": "1,2"}}, "expected a choice and what is searched then"),
        (["seed=1,2"], {"seed=1": {"optimizer.lr": "interval(3,2)"}}, r"optimizer.lr=interval\(3,2\): expected"),
    ],
)
def test_invalid_spaces_are_refused(
    loader: ConfigLoader, arguments: list[str], conditional: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse(loader, *arguments, conditional=conditional)


def test_a_key_is_one_dimension_however_it_is_written(loader: ConfigLoader) -> None:
    space = parse(loader, "++optimizer.lr=shuffle(2,1,3)", params={"optimizer.lr": "1,2"})
    assert space.axes == {"optimizer.lr": ["1", "2", "3"]}


def test_examples_are_points_of_the_space(loader: ConfigLoader) -> None:
    space = parse(loader, "seed=range(0,7,3)", "optimizer.lr=tag(log,interval(1,100))", "model=cnn,resnet18")
    assert [tuple(point.values()) for point in space.examples()] == [
        ("3", "10.0", "cnn"), ("0", "3.1622776601683795", "resnet18"), ("3", "31.622776601683793", "cnn"),
        ("0", "1.0", "resnet18"), ("6", "100.0", "cnn"),
    ]  # fmt: skip
    assert space.axes["optimizer.lr"] == ["tag(log,interval(1,100))"]


def test_all_problems_are_reported_at_once(loader: ConfigLoader) -> None:
    with pytest.raises(UserError) as error:
        parse(loader, "seed=range(0,0)", "optimizer.lr=interval(2,1)")
    assert len(str(error.value).splitlines()) == 2


def test_infinite_spaces_have_no_list_of_points() -> None:
    space = Space((Dimension("x", "x", Numbers(1, 10**12, 1, False), ""),), ())
    assert space.points(100) is None
    assert Space((Dimension("x", "x", Numbers(0.0, 1.0, None, False), ""),), ()).points(10) is None


def test_each_config_that_may_be_chosen_has_examples(loader: ConfigLoader) -> None:
    """Those of a condition have what exists on it; neither seeds nor values are configs."""
    params = {"model": "cnn,torchvision", "seed": "0,1", "optimizer.lr": "interval(0.0,1.0)", "model.widths": "[1],[2]"}
    conditional = {"model=torchvision": {"model.name": "resnet18,resnet34"}}
    space = parse_space(loader, params, [], conditional, {})
    assert space.config_choices() == [("model", "cnn"), ("model", "torchvision")]
    first = space.examples(("model", "torchvision"))[0]
    assert first == {
        "model": "torchvision", "seed": "0", "optimizer.lr": "0.5", "model.widths": "[1]", "model.name": "resnet18",
    }  # fmt: skip
    assert all(point["model"] == "cnn" and "model.name" not in point for point in space.examples(("model", "cnn")))
