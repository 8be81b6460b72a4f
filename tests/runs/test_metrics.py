"""Rows of metrics.csv, and the units and directions in metrics.json."""

import json
import math
from contextlib import closing
from pathlib import Path

import pytest

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import (
    HEADER,
    Metric,
    MetricsWriter,
    Row,
    iterate_rows,
    last_values,
    read_metric_table,
    read_metrics,
    split_of,
)


def written(path: Path) -> Path:
    with closing(MetricsWriter(path)) as writer:
        writer.append(0, 10, {"val/accuracy": 0.1, "val/loss": 1 / 3})
        writer.append(1, 20, {"val/accuracy": 0.5})
    return path


ROWS = [Row(0, 10, "val/accuracy", 0.1), Row(0, 10, "val/loss", 1 / 3), Row(1, 20, "val/accuracy", 0.5)]


def test_rows_are_exact(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    assert read_metrics(file) == ROWS
    assert file.read_text().splitlines()[:2] == ["epoch,step,metric,value", "0,10,val/accuracy,0.1"]


def test_a_second_writer_appends_below_one_header_and_a_reader_sees_it_at_once(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    names = ['a,"b"', "größe", "a\u2028b"]
    with closing(MetricsWriter(file)) as writer:
        writer.append(2, 30, dict.fromkeys(names, 0.5))
        assert read_metrics(file) == [*ROWS, *(Row(2, 30, name, 0.5) for name in names)]
        writer.append(2, 40, {"a": math.nan, "b": math.inf})
    assert [str(row.value) for row in read_metrics(file)[-2:]] == ["nan", "inf"]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.csv")
    whole = file.read_bytes() + "2,30,größe,0.5".encode()
    for length in range(len(",".join(HEADER)) + 1, len(whole)):
        file.write_bytes(whole[:length])
        rows = read_metrics(file)
        assert rows == ROWS[: len(rows)]
    assert rows == ROWS


@pytest.mark.parametrize("text", ["", "epoch,step", "epoch,step\n1,2\n", "a,b,c,d\n"])
def test_another_header_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match="expected the header epoch,step,metric,value"):
        read_metrics(tmp_path / "metrics.csv")


@pytest.mark.parametrize("line", ["1,2,lr", "one,2,lr,0.5", "1,2,lr,much"])
def test_a_damaged_line_before_the_last_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(f"{','.join(HEADER)}\n{line}\n1,3,lr,0.5\n")
    with pytest.raises(ValueError, match=r"."):
        read_metrics(tmp_path / "metrics.csv")


def test_last_validation_values() -> None:
    others = [Row(1, 20, name, 9.0) for name in ("train/loss", "lr", "test/loss", "throughput/images_per_second")]
    assert last_values([*ROWS, *others]) == {"val/accuracy": 0.5, "val/loss": 1 / 3}


def test_rows_of_some_metrics(tmp_path: Path) -> None:
    file, odd = written(tmp_path / "metrics.csv"), 'a,"b"'
    with closing(MetricsWriter(file)) as writer:
        writer.append(2, 30, {odd: 1.0, "val/accuracy_of_others": 2.0})
    assert list(iterate_rows(file, ["val/accuracy"])) == [ROWS[0], ROWS[2]]
    assert list(iterate_rows(file, [odd])) == [Row(2, 30, odd, 1.0)]
    assert list(iterate_rows(tmp_path / "missing", ["val/accuracy"])) == []
    file.write_bytes(b"0,1,lr,much\n\xff,lr\n0,2,lr,0.5\n" + b"9" * 5000 + b",lr,1\n0,3,lr,0.25")
    assert list(iterate_rows(file, ["lr"])) == [Row(0, 2, "lr", 0.5)]


@pytest.mark.parametrize(
    ("name", "split", "quantity", "label"),
    [
        ("val/top5_accuracy", "val", "top5_accuracy", "validation top5 accuracy"),
        ("val_acc", "val", "acc", "validation acc"),
        ("valid/acc", "val", "acc", "validation acc"),
        ("validation_f1", "val", "f1", "validation f1"),
        ("test_acc", "test", "acc", "test acc"),
        ("Test/acc", "test", "acc", "test acc"),
        ("train_loss_step", "train", "loss_step", "training loss step"),
        ("loss/test", "test", "loss", "test loss"),
        ("loss_val", "val", "loss", "validation loss"),
        ("f1", None, "f1", "f1"),
        ("value", None, "value", "value"),
        ("trainable", None, "trainable", "trainable"),
        ("val", None, "val", "val"),
        ("throughput/images_per_second", None, "throughput/images_per_second", "throughput images per second"),
    ],
)
def test_split_and_label_of_a_metric(name: str, split: str | None, quantity: str, label: str) -> None:
    metric = Metric(name)
    assert (split_of(name), metric.split, metric.quantity, metric.label) == (split, split, quantity, label)


@pytest.mark.parametrize(
    ("unit", "text", "scale"), [("%", "42.08 %", 100), ("", "0.4208", 1), ("s", "0.4208 s", 1), ("dB", "0.4208 dB", 1)]
)
def test_a_value_in_its_unit(unit: str, text: str, scale: float) -> None:
    metric = Metric("val/x", unit=unit)
    assert (metric.format(0.42079), metric.scale) == (text, scale)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2e-4, "0.0002"), (2.30362, "2.3036"), (309.556, "310"), (5658.2, "5,658"), (1e12, "1e+12")],
)
def test_digits_of_a_value(value: float, text: str) -> None:
    assert Metric("x").format(value) == text


ACCURACY = Metric("val/accuracy", unit="%", mode="max", bounds=(0.0, 1.0))
LOSS = Metric("val/loss", mode="min", bounds=(0.0, math.inf))


def test_units_and_directions_come_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert read_metric_table(run) == {}
    with closing(MetricsWriter(run.metrics)) as writer:
        writer.append(0, 1, {"lr": 0.1})
        assert not run.metric_table.exists()
        writer.append(0, 10, {"val/accuracy": 0.5}, {"val/accuracy": ACCURACY})
        assert read_metric_table(run) == {"val/accuracy": ACCURACY}
    with closing(MetricsWriter(run.metrics)) as writer:  # of a run that is resumed
        writer.append(0, 10, {"val/accuracy": 0.5}, {"val/accuracy": ACCURACY})
        writer.append(0, 10, {"val/loss": 0.5}, {"val/loss": LOSS})
    table = read_metric_table(run)
    assert table == {"val/accuracy": ACCURACY, "val/loss": LOSS}
    assert table["val/f1"] == Metric("val/f1"), "nothing is known of what a foreign module logs"


def test_a_damaged_table_knows_nothing_and_is_written_anew(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for text in ("", "[]", '{"val/loss": 5}', '{"val/loss": ' + "[" * 10**5):
        run.metric_table.write_text(text)
        assert read_metric_table(run) == {}
    with closing(MetricsWriter(run.metrics)) as writer:
        writer.append(0, 10, {"val/loss": 0.5}, {"val/loss": LOSS})
    assert read_metric_table(run) == {"val/loss": LOSS}


HOSTILE = [
    {"unit": 5, "mode": "best", "bounds": 3}, {"unit": "\x1b[2J", "mode": None, "bounds": [1]}, {},
    {"unit": "x" * 100, "bounds": ["a", 2]}, {"bounds": [10**400, None]}, {"bounds": [2, 1]},
]  # fmt: skip


@pytest.mark.parametrize("entry", HOSTILE)
def test_malformed_entries_are_unknown(entry: object, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metric_table.write_text(json.dumps({"val/loss": entry}))
    assert read_metric_table(run) == {"val/loss": Metric("val/loss")}
