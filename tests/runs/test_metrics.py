"""metrics.csv: whole lines, a torn last one is left out."""

import math
from pathlib import Path

import pytest

from litlab.runs.metrics import HEADER, MetricsWriter, Row, last_values, read_metrics


def written(path: Path) -> Path:
    writer = MetricsWriter(path)
    writer.append(0, 10, {"val/accuracy": 0.1, "val/loss": 1 / 3})
    writer.append(1, 20, {"val/accuracy": 0.5})
    writer.close()
    return path


ROWS = [Row(0, 10, "val/accuracy", 0.1), Row(0, 10, "val/loss", 1 / 3), Row(1, 20, "val/accuracy", 0.5)]


def test_rows_come_back_to_the_last_bit(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    assert read_metrics(file) == ROWS
    assert file.read_text().splitlines()[:2] == ["epoch,step,metric,value", "0,10,val/accuracy,0.1"]


def test_a_second_writer_appends_below_one_header(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    writer = MetricsWriter(file)
    writer.append(2, 30, {"lr": 0.5})
    writer.close()
    assert read_metrics(file) == [*ROWS, Row(2, 30, "lr", 0.5)]


def test_a_reader_sees_each_row_at_once(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    assert read_metrics(tmp_path / "metrics.csv") == []
    writer.append(0, 1, {"lr": 0.5})
    assert read_metrics(tmp_path / "metrics.csv") == [Row(0, 1, "lr", 0.5)]
    writer.close()


def test_names_may_hold_commas_quotes_and_letters_of_all_kinds(tmp_path: Path) -> None:
    names = ['a,"b"', "größe", "a\u2028b"]
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.append(0, 1, dict.fromkeys(names, 1.0))
    writer.close()
    assert [row.metric for row in read_metrics(tmp_path / "metrics.csv")] == names


def test_a_torn_last_line_is_left_out_wherever_it_is_torn(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    whole = file.read_bytes() + "2,30,größe,0.5".encode()
    for length in range(len(",".join(HEADER)) + 1, len(whole)):
        file.write_bytes(whole[:length])
        rows = read_metrics(file)
        assert rows == ROWS[: len(rows)]
    assert rows == ROWS


def test_numbers_that_are_none_are_kept(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.append(0, 1, {"a": math.nan, "b": math.inf})
    writer.close()
    first, second = read_metrics(tmp_path / "metrics.csv")
    assert math.isnan(first.value)
    assert second.value == math.inf


@pytest.mark.parametrize("text", ["", "epoch,step", "epoch,step\n1,2\n", "a,b,c,d\n"])
def test_another_header_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match="expected the header epoch,step,metric,value"):
        read_metrics(tmp_path / "metrics.csv")


@pytest.mark.parametrize("line", ["1,2,lr", "one,2,lr,0.5", "1,2,lr,much"])
def test_a_damaged_line_before_the_last_is_no_torn_one(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(f"{','.join(HEADER)}\n{line}\n1,3,lr,0.5\n")
    with pytest.raises(ValueError, match=r"."):
        read_metrics(tmp_path / "metrics.csv")


LOGGED = [
    Row(0, 10, "val/accuracy", 0.1),
    Row(1, 20, "val/accuracy", 0.5),
    Row(1, 20, "val/loss", 4.0),
    Row(1, 20, "train/loss", 9.0),
    Row(2, 30, "val/accuracy", 0.4),
    Row(2, 30, "lr", 0.1),
    Row(2, 30, "test/loss", 2.0),
]


def test_last_values_are_those_of_validation() -> None:
    assert last_values(LOGGED) == {"val/accuracy": 0.4, "val/loss": 4.0}
