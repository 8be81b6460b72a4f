"""Config trees: dotted keys, walking, flattening and diffs."""

from copy import deepcopy
from typing import Any

import pytest

from litlab.config.tree import (
    ABSENT,
    MAX_DEPTH,
    MAX_VALUES,
    check_plain,
    diff,
    flatten,
    get,
    keys,
    lies_under,
    map_values,
    put,
    unknown_key_message,
    walk,
)
from litlab.errors import UserError

TREE: dict[str, Any] = {"seed": 0, "model": {"widths": [6, 16], "hidden": {}}, "logger": None}


def test_walk_visits_every_node() -> None:
    assert [key for key, _ in walk(TREE)] == [
        "", "seed", "model", "model.widths", "model.widths.0", "model.widths.1", "model.hidden", "logger",
    ]  # fmt: skip
    assert dict(walk(TREE))["model.widths.1"] == 16


def test_keys_and_flatten_enter_mappings_only() -> None:
    assert list(keys(TREE)) == ["seed", "model", "model.widths", "model.hidden", "logger"]
    assert flatten(TREE) == {"seed": 0, "model.widths": [6, 16], "model.hidden": {}, "logger": None}


def test_map_values_copies() -> None:
    before = deepcopy(TREE)
    mapped = map_values(lambda key, value: f"{key}={value}", TREE)
    assert mapped["model"] == {"widths": ["model.widths.0=6", "model.widths.1=16"], "hidden": {}}
    assert before == TREE


def test_diff_tells_types_apart() -> None:
    before = {"a": 1, "b": {"c": [1], "d": None}, "e": True}
    assert diff(before, deepcopy(before)) == {}
    assert diff(before, {"a": 1.0, "b": {"c": [2]}, "e": 1, "f": {}}) == {
        "a": [1, 1.0], "b.c": [[1], [2]], "b.d": [None, ABSENT], "e": [True, 1], "f": [ABSENT, {}]
    }  # fmt: skip


def test_lies_under() -> None:
    assert lies_under("data", "data")
    assert lies_under("data.root.x", "model", "data.root")
    assert not lies_under("data.rooted", "data.root")
    assert not lies_under("data", "data.root")
    assert not lies_under("data")


def test_get_and_put_by_dotted_key() -> None:
    assert get(TREE, "model.widths") == [6, 16]
    assert get(TREE, "logger") is None
    assert get(TREE, "logger.name", "none") == "none"
    config: dict[str, Any] = {"a": None}
    put(config, "a.b.c", 1)
    put(config, "a.d", 2)
    assert config == {"a": {"b": {"c": 1}, "d": 2}}


DEEP: Any = 1
for _ in range(MAX_DEPTH + 1):
    DEEP = {"a": DEEP}
ROW = [0] * 1000


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"a": [{"b": (1, 2)}]}, "a.0.b: found the tuple '(1, 2)', expected a text"),
        ({"a": {True: 2}}, "a: has the key the bool 'True', expected a text or a number; quote it"),
        ({"a": {None: 2}}, "a: has the key the NoneType 'None', expected a text or a number"),
        ({"a": {float("nan"): 2}}, "a: has the key the float 'nan', expected a text or a number"),
        ({"a": {1: 2, "1": 3}}, "a: has the key the int '1', and the same as a text; leave out one"),
        ({"a": {"_target_": "b", 1: 2}}, "a: has the key the int '1', expected a name"),
        ({"a": {1, 2}}, "a: found the set '{1, 2}', expected a text"),
        ({"a": b"bytes"}, "a: found the bytes "),
        ({"a": "\ud800"}, "a: '\\ud800' can't be written as UTF-8"),
        ({"\ud800": 1}, "has the key the str '\\ud800'"),
        ({"a": 2**70}, "a: a number of more than 64 bits"),
        (DEEP, "more than 100 levels"),
        ({"rows": [ROW] * (MAX_VALUES // 1000)}, "more than 100,000 values"),
    ],
)
def test_check_plain_refuses(config: Any, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        check_plain(config)
    assert expected in str(refused.value)


def test_check_plain_accepts_what_yaml_can_hold() -> None:
    check_plain(TREE | {"x": [1.5, True, "é", {"y": float("nan")}]})
    check_plain(DEEP["a"])
    check_plain(TREE | {"weights": {0: 1.0, 1: 3.0, 0.5: {"a": [{2: 3}]}}})


def test_each_known_key_is_listed_once() -> None:
    message = unknown_key_message("zzz", ["data", "model", "data.batch_size", "model", "data"])
    assert message == "zzz: unknown key; known here: data, model"
    assert unknown_key_message("model.zzz", ["model.width", "model.width"]).endswith("known here: model.width")


def test_an_unknown_key_far_below_has_the_keys_beside_its_first_unknown_part() -> None:
    known = ["data", "data.size", "data.folders", "data.folders.train", "model"]
    assert unknown_key_message("zzz.b.c", known) == "zzz.b.c: unknown key; known here: data, model"
    assert unknown_key_message("data.zzz.c", known).endswith("known here: data.folders, data.size")


def test_a_key_below_null_is_set_with_the_whole() -> None:
    message = unknown_key_message("objective.metric", ["objective", "data"])
    assert message == "objective.metric: unknown key; objective has no keys here, it is set as a whole: objective=..."


def test_nan_does_not_differ_from_nan() -> None:
    assert diff({"a": float("nan"), "b": [float("nan")]}, {"a": float("nan"), "b": [float("nan")]}) == {}
