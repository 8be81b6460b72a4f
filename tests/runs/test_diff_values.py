"""How `litlab diff` writes two values: as configs have them, and never as the same text."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support.studies import make_run

from litlab.cli import diff
from litlab.runs.diff import changed
from litlab.runs.result import read_result

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
    (found,) = changed("config", {"a": old}, {"a": new})
    assert (found.old, found.new) == expected


def test_long_values_are_shown_where_they_differ() -> None:
    values = list(range(100))
    (found,) = changed("config", {"a": [*values, 1]}, {"a": [*values, 2]})
    assert (found.old[0], found.old[-4:], found.new[-4:]) == ("…", "9,1]", "9,2]")
    assert len(found.old) <= 48


def test_runs_that_end_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their last values are the same; what is shown is where they last were not."""
    curves = [lambda epoch: [0.5, 0.6, NOISY][epoch], lambda epoch: [0.5, 0.7, NOISY][epoch]]
    old, new = (
        make_run(tmp_path / name, {}, 0.5, num_epochs=3, curve=curve) for name, curve in zip("ab", curves, strict=True)
    )
    diff.main([str(old.path), str(new.path)])
    line = next(line for line in capsys.readouterr().out.splitlines() if " rows, " in line and "val/accuracy" in line)
    assert " ".join(line.split()) == (
        "val/accuracy 0.6 -> 0.7 1 of 3 rows, the first at step 20, the last of them shown, by at most 0.1"
    )


def test_no_line_shows_the_same_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, {"model.widths": [6, 16], "data.flip": name == "a"}, 0.5) for name in "ab"]
    for run, value in zip(runs, (0.1, NOISY), strict=True):
        run.result.write_text(json.dumps(read_result(run) | {"best": {"val/loss": value}}))
    for old, new in itertools.permutations(runs):
        diff.main([str(old.path), str(new.path)])
        pairs = [line.split(" -> ") for line in capsys.readouterr().out.splitlines() if " -> " in line]
        assert pairs
        assert all(left.split()[-1] != right.split()[0] for left, right in pairs)
