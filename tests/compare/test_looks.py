"""Record of the looks at a study in its looks.jsonl."""

import json
from pathlib import Path

import pytest
from support.grids import LR, SEED, accuracy
from support.studies import make_run, make_study

from litlab.cli import compare as command
from litlab.compare.comparison import compare
from litlab.compare.looks import LOOKS_FILE, read_looks, record_looks
from litlab.errors import UserError

AXES = {LR: [0.05, 0.1], SEED: [0, 1, 2]}


def status(point: dict[str, float]) -> str:
    return "failed" if point == {LR: 0.1, SEED: 2} else "completed"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    make_study(tmp_path / "s", AXES, accuracy, status=status)
    return tmp_path / "s"


def test_a_look_is_recorded_once(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main([str(study)])
    command.main([str(study), "--format", "csv"])
    (line,) = (study / LOOKS_FILE).read_text().splitlines()
    look = json.loads(line)
    assert look.pop("time").endswith("+00:00")
    assert len(look.pop("groups")) == 16
    assert look == {
        "metric": "val/accuracy", "at": "best", "baseline": None, "lowest": 3, "highest": 3, "num_groups": 2,
    }  # fmt: skip
    command.main([str(study), "--baseline", "lr=0.1"])
    command.main([str(study), "--metric", "val/loss", "--filter", "lr=0.05"])
    command.main([str(study)])
    looks = read_looks(study)
    assert [look.baseline for look in looks] == [None, "lr=0.1", None, None]
    nums = [(look.lowest, look.highest, look.num_groups) for look in looks]
    assert nums == [(3, 3, 2), (3, 3, 2), (3, 3, 1), (3, 3, 2)]  # also the seed that failed has ended
    assert len({look.groups for look in looks}) == 2
    assert "recorded" not in capsys.readouterr().err


def test_a_group_without_a_completed_run_counts_as_looked_at(tmp_path: Path) -> None:
    make_study(tmp_path / "s", AXES, accuracy, status=lambda point: "failed" if point[LR] == 0.1 else "completed")
    assert record_looks(compare([tmp_path / "s"])) == []
    assert [(look.lowest, look.highest) for look in read_looks(tmp_path / "s")] == [(0, 3)]


def test_each_study_has_its_own_numbers(study: Path, tmp_path: Path) -> None:
    make_study(tmp_path / "other", {LR: [0.2], SEED: [0]}, accuracy)
    assert record_looks(compare([study, tmp_path / "other"])) == []
    assert [(look.lowest, look.highest) for look in read_looks(study)] == [(3, 3)]
    assert [(look.lowest, look.highest) for look in read_looks(tmp_path / "other")] == [(1, 1)]


def test_runs_of_a_study_that_are_named_themselves_are_a_look_at_it(study: Path) -> None:
    assert record_looks(compare([run for run in sorted(study.iterdir()) if run.is_dir()])) == []
    assert [(look.lowest, look.highest) for look in read_looks(study)] == [(3, 3)]


def test_nothing_is_written_into_the_studies_of_others_or_beside_single_runs(tmp_path: Path) -> None:
    make_study(tmp_path / "foreign", AXES, accuracy, is_own=False)
    make_run(tmp_path / "run", {LR: 0.3}, 0.5)
    assert record_looks(compare([tmp_path])) == []
    assert [*tmp_path.rglob(LOOKS_FILE)] == []


def test_a_look_that_cannot_be_recorded_is_a_note(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may write into a read-only folder; a link there is refused for any user."""
    target = tmp_path / "target"
    target.write_text("mine")
    (study / LOOKS_FILE).symlink_to(target)
    command.main([str(study)])
    text = " ".join(capsys.readouterr().out.split())
    assert f"{study}: this look could not be recorded in looks.jsonl: " in text
    assert target.read_text() == "mine"


@pytest.mark.parametrize("content", ["[]", "{}", '{"time": 3}', "[" * 100_000, "\xff"])
def test_a_damaged_record_is_refused_and_kept(content: str, study: Path) -> None:
    file = study / LOOKS_FILE
    file.write_bytes(content.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=r"looks\.jsonl is damaged"):
        read_looks(study)
    (note,) = record_looks(compare([study]))
    assert note.startswith(f"{study}: this look could not be recorded in looks.jsonl: {file} is damaged")
    assert file.read_bytes() == content.encode("latin-1") + b"\n"


def test_a_torn_last_line_is_replaced(study: Path) -> None:
    assert record_looks(compare([study])) == []
    with (study / LOOKS_FILE).open("a") as file:
        file.write('{"time": "20')
    assert len(read_looks(study)) == 1
    assert record_looks(compare([study], baseline="lr=0.1")) == []
    assert [look.baseline for look in read_looks(study)] == [None, "lr=0.1"]
