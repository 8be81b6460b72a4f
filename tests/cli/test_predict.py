"""`litlab predict` against the predictor, on real files."""

import csv
import io
import json
from pathlib import Path

import PIL.Image
import pytest
import torch

from litlab.cli import predict
from litlab.errors import UserError
from litlab.inference.predictor import load
from litlab.runs.directory import RunDirectory

NAMES = ("a.png", "below/b.PNG", "below/deeper/c.webp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three images of three sizes, and files that are no images or hidden."""
    folder = tmp_path / "images"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (32 + number, 32, 3), dtype=torch.uint8, generator=generator)
        PIL.Image.fromarray(pixels.numpy()).save(path, lossless=True)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "d.png").write_text("no image")
    return folder


def test_csv_holds_the_probabilities_of_the_predictor(
    tiny_run: RunDirectory, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict.main([str(tiny_run.path), "--images", str(folder), "--top", "3", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    predictor = load(tiny_run.path)
    expected = predictor([folder / name for name in NAMES]).topk(3, dim=1)
    assert [row["file"] for row in rows] == [str(folder / name) for name in NAMES for _ in range(3)]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3] * 3
    assert [row["class"] for row in rows] == [predictor.class_names[k] for k in expected.indices.flatten()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected.values.flatten().tolist())


def test_json_and_table_agree(
    tiny_run: RunDirectory, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    paths = [str(folder / name) for name in NAMES]
    predict.main([str(tiny_run.path), "--images", *paths, "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    predictor = load(tiny_run.path)
    assert [row["file"] for row in rows] == paths
    predicted = [(row["class"], pytest.approx(row["probability"])) for row in rows]
    assert predicted == predictor.predict([*paths])
    predict.main([str(tiny_run.path), "--images", *paths])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [[f"{100 * row['probability']:.2f}", "%", row["class"], row["file"]] for row in rows]


def test_unreadable_files_are_reported_and_the_others_predicted(
    tiny_run: RunDirectory, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    missing = folder / "missing.png"
    with pytest.raises(UserError, match="2 of 5 files could not be read"):
        predict.main([str(tiny_run.path), "--images", str(missing), str(folder), "--format", "json"])
    output = capsys.readouterr()
    assert len(json.loads(output.out)) == 3
    assert [line.split()[1] for line in output.err.splitlines()] == [str(missing), str(folder / "broken.jpg")]
    with pytest.raises(UserError, match="1 of 1 files"):
        predict.main([str(tiny_run.path), "--images", str(missing), "--format", "json"])
    assert json.loads(capsys.readouterr().out) == []


def test_a_folder_without_images_is_an_error(tiny_run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=f"{tmp_path}: no JPEG, PNG or WebP files"):
        predict.main([str(tiny_run.path), "--images", str(tmp_path)])


def test_top_is_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        predict.main(["somewhere", "--images", "x", "--top", "0"])
    assert exit_.value.code == 2
    assert "expected a whole number of at least 1" in capsys.readouterr().err
