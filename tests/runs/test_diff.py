"""Differences between two runs, from files like those that runs write."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from litlab.errors import UserError
from litlab.runs.diff import ABSENT, Difference, RunDiff, diff_runs, diff_values
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsWriter

MACHINE = {"processor": "a", "cores": 2, "device": "cpu", "python": "3.11.7", "packages": {"litlab": "1", "torch": "2"}}
CODE = {"commit": "a" * 40, "diff": "", "diff_complete": True, "untracked": {}}
RUN: dict[str, Any] = {
    "config": {"seed": 0, "optimizer": {"lr": 0.1}, "callbacks": {}},
    "provenance": {"code": CODE, "machine": MACHINE, "started": "now", "command": ["litlab"]},
    "dataset": {"fingerprint": "f" * 64, "class_names": ["cat", "dog"]},
    "result": {
        "weights": "1" * 64, "steps": 2, "best": {"val/loss": 0.5}, "test": {"test/loss": 0.25}, "seconds": {"fit": 1.0}
    },
    "metrics": [(0, 1, "train/loss", 2.0), (0, 2, "train/loss", 1.0), (0, 2, "val/loss", 0.5)],
}  # fmt: skip


def with_code(**changes: Any) -> dict[str, Any]:
    return {"provenance": RUN["provenance"] | {"code": CODE | changes}}


def with_machine(**changes: Any) -> dict[str, Any]:
    return {"provenance": RUN["provenance"] | {"machine": MACHINE | changes}}


def write_run(path: Path, **changes: Any) -> RunDirectory:
    """Write a run directory with these files; None leaves one out."""
    parts = RUN | changes
    path.mkdir()
    run = RunDirectory(path)
    run.config.write_text(yaml.safe_dump(parts["config"]))
    for name in ("provenance", "dataset", "result"):
        if parts[name] is not None:
            (path / f"{name}.json").write_text(json.dumps(parts[name]))
    if parts["metrics"] is not None:
        with closing(MetricsWriter(run.metrics)) as writer:
            for epoch, step, metric, value in parts["metrics"]:
                writer.append(epoch, step, {metric: value})
    return run


def compared(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> RunDiff:
    return diff_runs(write_run(folder / "old", **old), write_run(folder / "new", **new))


def test_a_finished_run_equals_itself(tiny_run: RunDirectory) -> None:
    result = diff_runs(tiny_run, tiny_run)
    assert result.differences == []
    assert result.identical
    assert result.num_rows == 2 * (4 * 3 + 4) + 4  # an epoch has 4 rows of 3 values and a validation; the test


def test_timings_are_not_compared(tmp_path: Path) -> None:
    clock = {
        "result": RUN["result"] | {"seconds": {"fit": 9.0}, "images_per_second": 3.0, "last": {"throughput/x": 4.0}},
        "metrics": [*RUN["metrics"], (0, 2, "throughput/images_per_second", 123.0)],
        "provenance": RUN["provenance"] | {"started": "later", "command": ["litlab", "rerun"]},
    }
    assert compared(tmp_path, {}, clock) == RunDiff([], {}, num_rows=3)


def with_result(**changes: Any) -> dict[str, Any]:
    return {"result": RUN["result"] | changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [  # a text is shown by the beginning of its SHA-256
        (
            {"config": {"seed": 0, "optimizer": {"lr": 0.2}, "callbacks": {"a": {"_target_": "b.C"}}}},
            [
                "config callbacks: {} -> absent",
                "config optimizer.lr: 0.1 -> 0.2",
                "config callbacks.a._target_: absent -> b.C",
            ],
        ),
        ({"config": RUN["config"] | {"seed": 0.0}}, ["config seed: 0 -> 0.0"]),
        (
            with_code(commit="b" * 40, untracked={"net.py": "w = 3\n"}),
            ["code commit: aaaaaaaaaaaa -> bbbbbbbbbbbb", "code untracked net.py: absent -> 1 lines (a4aef219)"],
        ),
        (with_code(diff="+w = 3\n"), ["code uncommitted changes: none -> 1 lines (4a12cd8a)"]),
        (
            with_machine(packages={"litlab": "2", "jax": "1"}),
            ["code litlab: 1 -> 2", "packages torch: 2 -> absent", "packages jax: absent -> 1"],
        ),
        (with_machine(cores=4, host="other"), ["hardware cores: 2 -> 4"]),
        ({"dataset": RUN["dataset"] | {"fingerprint": "e" * 64}}, ["data fingerprint: ffffffffffff -> eeeeeeeeeeee"]),
        (with_result(weights="2" * 64), ["result weights: 111111111111 -> 222222222222"]),
        (with_result(test={"test/loss": 0.25 + 2**-40}), ["result test test/loss: 0.25 -> 0.250000000001"]),
        (with_result(best={}), ["result best val/loss: 0.5 -> absent"]),
        (with_result(steps=3), ["result steps: 2 -> 3"]),
    ],
)
def test_inputs_and_results(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    """Results are compared to the last bit."""
    result = compared(tmp_path, {}, changes)
    assert [f"{item.section} {item.name}: {item.old} -> {item.new}" for item in result.differences] == expected
    is_result = "result" in changes
    assert (result.identical, result.same_recipe) == (not is_result, is_result)


LAST = "the last of them shown"


@pytest.mark.parametrize(
    ("rows", "values", "note"),
    [
        ([(0, 1, 2.0), (0, 2, 1.5)], ("1", "1.5"), "1 of 2 rows, the first at step 2, by at most 0.5"),
        ([(0, 1, 2.25), (0, 2, 1.0)], ("2", "2.25"), f"1 of 2 rows, the first at step 1, {LAST}, by at most 0.25"),
        ([(0, 1, 2.0)], ("1", "2"), "1 of 2 rows, the first at step 2"),
        ([(0, 1, 2.0), (1, 2, 1.0)], (ABSENT, "1.0"), f"2 of 3 rows, the first at step 2, {LAST}"),
        ([(0, 1, 2.0), (0, 2, 1.0), (0, 2, 1.0)], (ABSENT, "1.0"), f"1 of 3 rows, the first at step 2, {LAST}"),
        ([(0, 1, 3.0), (0, 2, float("nan"))], ("1", "nan"), "2 of 2 rows, the first at step 1, by at most nan"),
        ([], ("1.0", ABSENT), "2 of 2 rows, the first at step 1"),
    ],
)
def test_metric_rows(tmp_path: Path, rows: list[tuple[int, int, float]], values: tuple[str, str], note: str) -> None:
    metrics = [(epoch, step, "train/loss", value) for epoch, step, value in rows]
    result = compared(tmp_path, {}, {"metrics": [*metrics, RUN["metrics"][2]]})
    assert result.differences == [Difference("metrics", "train/loss", *values, note=note)]
    assert not result.identical


def test_nan_equals_nan(tmp_path: Path) -> None:
    rows = {"metrics": [(0, 1, "train/loss", float("nan"))]}
    assert compared(tmp_path, rows, rows).identical


def test_missing_records_are_unknown(tmp_path: Path) -> None:
    bare = {"provenance": {"code": None}, "dataset": None, "result": {"steps": 2}}
    result = compared(tmp_path, bare, bare)
    assert result.unknown.keys() == {"code", "packages", "hardware", "data", "weights"}
    assert result.differences == []
    assert not result.identical


def test_a_cut_diff_is_unknown(tmp_path: Path) -> None:
    cut = with_code(diff="+", diff_complete=False)
    assert "too long" in compared(tmp_path, cut, cut).unknown["code"]


@pytest.mark.parametrize(
    "junk",
    [
        {"provenance": ["x"], "dataset": "x", "result": 3},
        {"provenance": {"code": 1, "machine": {"packages": [1]}}, "dataset": {}, "result": {"best": [1]}},
    ],
)
def test_malformed_files_raise_nothing(tmp_path: Path, junk: dict[str, Any]) -> None:
    assert not compared(tmp_path, {}, junk).identical


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old")
    for number, (name, content) in enumerate([("metrics.csv", "a,b\n"), ("config.yaml", "a: ["), ("result.json", "{")]):
        new = write_run(tmp_path / str(number))
        (new.path / name).write_text(content)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            diff_runs(old, new)
    with pytest.raises(UserError, match=r"metrics\.csv is missing"):
        diff_runs(old, write_run(tmp_path / "new", metrics=None))


NOISY = 0.10000000149011612  # 0.1 in single precision


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([6, 16], [6, 32], ("[6,16]", "[6,32]")),
        (True, False, ("true", "false")),
        (None, {"a": [1]}, ("null", '{"a":[1]}')),
        (0.1, NOISY, ("0.1", "0.100000001")),
        (0.1, 0.30000000000000004, ("0.1", "0.3")),
        (0.3, 0.30000000000000004, ("0.3", "0.30000000000000004")),
        (0.0, -0.0, ("0", "-0")),
        (0.1, "0.1", ("0.1", "'0.1'")),
        (True, "true", ("True", "'true'")),
        (1, 1.0, ("1", "1.0")),
    ],
)
def test_two_values(old: Any, new: Any, expected: tuple[str, str]) -> None:
    (result,) = diff_values("config", {"a": old}, {"a": new})
    assert (result.old, result.new) == expected


def test_long_values_are_shown_where_they_differ() -> None:
    values = list(range(100))
    (result,) = diff_values("config", {"a": [*values, 1]}, {"a": [*values, 2]})
    assert (result.old[0], result.old[-4:], result.new[-4:]) == ("…", "9,1]", "9,2]")
    assert len(result.old) <= 48
