"""The result of a run in result.json."""

import json
import math
from pathlib import Path

import pytest

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.state import RunStatus


def test_a_result_comes_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    result = Result(status=RunStatus.COMPLETED, identity="abc", objective=0.5, test={"test/loss": 0.25}, steps=3)
    write_result(run, result)
    read = read_result(run)
    assert read["format"] == 1
    assert (read["status"], read["identity"], read["objective"], read["steps"]) == ("completed", "abc", 0.5, 3)
    assert (read["test"], read["best"], read["error"]) == ({"test/loss": 0.25}, {}, None)
    assert set(read) == set(Result.__dataclass_fields__)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_values_are_null(value: float, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_result(run, Result(RunStatus.COMPLETED, "", objective=value, test={"test/loss": value, "x": 1.0}))
    read = json.loads(run.result.read_text(), parse_constant=pytest.fail)
    assert (read["objective"], read["test"]) == (None, {"test/loss": None, "x": 1.0})


def test_a_missing_or_damaged_result_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not written it yet"):
        read_result(RunDirectory(tmp_path))
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_result(RunDirectory(tmp_path))
