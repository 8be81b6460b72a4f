"""Data sets of Hugging Face in local folders, as its package `datasets` writes and reads them."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.exact_resume import differences, new_run, outcome, train_until
from support.runs import Command, train_here

from litlab.cli import evaluate
from litlab.data.archive import MAX_MEMBER_BYTES
from litlab.data.huggingface import HuggingFace
from litlab.errors import UserError
from litlab.runs.files import write_json

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
packaged_modules = pytest.importorskip("datasets.packaged_modules")
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:Cannot .*MonthDayNano"),  # of dill, where `datasets` hashes pyarrow's types
]

Make = Callable[..., HuggingFace]
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep apart what `datasets` caches, and ask for nothing over a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def image(level: int, size: tuple[int, int] = (24, 24)) -> Image.Image:
    return Image.new("RGB", size, (level, 0, 255 - level))


def dataset(levels: range, **columns: list[Any]) -> Any:
    """Return a data set of images of these levels, whose classes alternate unless there are other columns."""
    content: dict[str, list[Any]] = {"image": [image(level) for level in levels]}
    content |= columns or {"label": [level % 3 for level in levels]}
    kind = datasets.Value("string") if columns and isinstance(columns["label"][0], str) else None
    label = kind or (datasets.Value("int64") if columns else datasets.ClassLabel(names=CLASSES))
    return datasets.Dataset.from_dict(content, features=datasets.Features(image=datasets.Image(), label=label))


def splits(**ranges: range) -> Any:
    return datasets.DatasetDict({name: dataset(levels) for name, levels in ranges.items()})


def write_images(path: Path) -> None:
    """Write images in folders of their classes, PNG and JPEG, of different sizes."""
    for split, levels in (("train", range(30)), ("test", range(30, 42))):
        for level in levels:
            file = path / split / CLASSES[level % 3] / f"{level:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image(level, (20 + level, 24)).save(file)


def write_parquet(path: Path) -> None:
    path.mkdir()
    for split, levels in (("train", range(30)), ("test", range(30, 42))):
        dataset(levels).to_parquet(str(path / f"{split}-00000-of-00001.parquet"))


def write_saved(path: Path) -> None:
    splits(train=range(30), test=range(30, 42)).save_to_disk(str(path))


def levels(images: Any) -> list[int]:
    return [int(level) for level in images[:, 0, 0, 0]]


@pytest.mark.parametrize("write", [write_images, write_parquet, write_saved])
def test_reads_local_folders(huggingface_module: Make, tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "data")
    module = huggingface_module()
    arrays, info = module.arrays, module.info
    assert info.class_names == tuple(CLASSES)
    assert info.image_shape == (3, 24, 24)
    assert (info.num_train + info.num_val, info.num_test) == (30, 12)
    assert sorted(levels(arrays.train_images)) == list(range(30))
    assert [level % 3 for level in levels(arrays.train_images)] == arrays.train_labels.tolist()
    assert [level % 3 for level in levels(arrays.test_images)] == arrays.test_labels.tolist()
    np.testing.assert_array_equal(arrays.train_images[:, 2, 5, 5], 255 - arrays.train_images[:, 0, 0, 0])
    assert (info.name, info.notes) == ("data", ())


def test_decodes_once_and_again_for_other_content(huggingface_module: Make, tmp_path: Path) -> None:
    write_saved(tmp_path / "data")
    before = huggingface_module()
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert huggingface_module().info.fingerprint == before.info.fingerprint
    assert entries == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    splits(train=range(10, 40), test=range(30, 42)).save_to_disk(str(tmp_path / "data"))
    assert huggingface_module().info.fingerprint != before.info.fingerprint
    assert huggingface_module(image_size=[12, 20], resize="pad").info.image_shape == (3, 12, 20)


def test_a_validation_split_is_used_and_a_test_split_drawn(huggingface_module: Make, tmp_path: Path) -> None:
    splits(train=range(24), validation=range(24, 30), unsupervised=range(30, 33)).save_to_disk(str(tmp_path / "data"))
    module = huggingface_module()
    assert levels(module.arrays.train_images[module.val_indices]) == list(range(24, 30))
    assert (module.info.num_train, module.info.num_val, module.info.num_test) == (18, 6, 6)
    assert "not used: the splits unsupervised" in module.info.notes
    without = huggingface_module(splits={"train": ["train"], "val": [], "test": ["validation"]})
    assert (without.info.num_train, without.info.num_val, without.info.num_test) == (18, 6, 6)
    assert levels(without.arrays.test_images) == list(range(24, 30))


def test_folds_need_the_validation_split_left_out(huggingface_module: Make, tmp_path: Path) -> None:
    splits(train=range(24), validation=range(24, 30)).save_to_disk(str(tmp_path / "data"))
    refused = refusal(huggingface_module, folds=3, fold=0)
    assert refused.endswith("set data.folds=null data.fold=null; or data.splits.val=[] leaves those out")
    without = {"train": ["train"], "val": [], "test": ["test"]}
    assert huggingface_module(folds=3, fold=0, splits=without).info.num_val == 6


@pytest.mark.parametrize("labels", [["bee", "ant", "cat"], [7, 3, 5]])
def test_classes_may_be_texts_or_numbers(huggingface_module: Make, tmp_path: Path, labels: list[Any]) -> None:
    column = [labels[level % 3] for level in range(30)]
    dataset(range(30), label=column).save_to_disk(str(tmp_path / "data"))
    module = huggingface_module()
    assert module.info.class_names == tuple(map(str, sorted(labels)))
    numbers = module.arrays.train_labels.tolist()
    assert [module.info.class_names[number] for number in numbers] == [str(label) for label in column]


def test_a_test_split_without_labels_is_not_used(huggingface_module: Make, tmp_path: Path) -> None:
    hidden = dataset(range(6)).map(lambda row: {"label": -1})
    datasets.DatasetDict({"train": dataset(range(30)), "test": hidden}).save_to_disk(str(tmp_path / "data"))
    module = huggingface_module()
    assert "not used: the images of test, which have no labels" in module.info.notes
    assert len(module.arrays.test_labels) == 0
    assert module.info.num_test == 8, "drawn"


def test_16_bit_images_are_scaled_from_their_bits(huggingface_module: Make, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((24, 24), 4000, dtype=np.uint16)).save(file, "PNG")
    content = {"image": [{"bytes": file.getvalue(), "path": None}] * 12, "label": [0, 1, 2] * 4}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "data"))
    module = huggingface_module()
    assert module.info.bit_depth == 12
    assert set(levels(module.arrays.train_images)) == {4000 >> 4}


def write_deep(path: Path, bits: int, shift: int = 0) -> None:
    """Write gray images of this many bits, shifted to the right; of 8 bits if that is what is left."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (42, 24, 24), dtype=np.uint16) >> shift
    values[0, 0, 0] = 2**bits - 1 >> shift
    for row, pixels in enumerate(values):
        file = path / ("train" if row < 30 else "test") / CLASSES[row % 3] / f"{row:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8) if bits - shift <= 8 else pixels).save(file)


def test_16_bit_images_are_evaluated_as_in_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_deep(tmp_path / "trained", 14)
    write_deep(tmp_path / "deep", 12)
    write_deep(tmp_path / "from 14", 12, shift=6)
    write_deep(tmp_path / "from 16", 12, shift=8)
    overrides = (*SMALL, "trainer.max_epochs=1", f"data.cache={tmp_path / 'cache'}", "~logger", "~callbacks")
    run = train_here(tmp_path / "run", *overrides, f"data.path={tmp_path / 'trained'}")
    assert run.read_json(run.dataset)["bit_depth"] == 14
    capsys.readouterr()
    for recorded, plain in ((14, "from 14"), (None, "from 16")):  # None: its images had none of 16 bits
        write_json(run.dataset, run.read_json(run.dataset) | {"bit_depth": recorded})
        metrics = []
        for name in ("deep", plain):
            evaluate.main([str(run.path), "--json", "--set", f"data.path={tmp_path / name}"])
            metrics.append(json.loads(capsys.readouterr().out)["metrics"])
        assert metrics[0] == metrics[1]


def refusal(make: Make, **changes: Any) -> str:
    with pytest.raises(UserError) as refused:
        make(**changes)
    return str(refused.value)


def test_what_does_not_fit_is_refused_in_plain_words(huggingface_module: Make, tmp_path: Path) -> None:
    write_saved(tmp_path / "data")
    columns = "has the columns image (Image), label (ClassLabel); set data.image_column=NAME"
    assert columns in refusal(huggingface_module, image_column="img")
    assert "data.label_column=class: " in refusal(huggingface_module, label_column="class")
    training = refusal(huggingface_module, splits={"train": ["training"], "val": [], "test": []})
    assert "has no training images; its splits are train, test, those of data.splits.train training" in training
    absent = refusal(huggingface_module, path="nobody/nothing")
    assert absent.startswith("data.path=nobody/nothing: datasets can't load it (")
    assert "HF_HUB_OFFLINE=1" in absent
    texts = {
        name: dataset(range(3), label=labels) for name, labels in (("train", CLASSES), ("test", ["ant", "bee", "dog"]))
    }
    datasets.DatasetDict(texts).save_to_disk(str(tmp_path / "texts"))
    other = refusal(huggingface_module, path=str(tmp_path / "texts"), val_size=0)
    assert other == "data.label_column=label: expected one of ant, bee, cat; found 'dog' in the test split"
    content = {"image": [image(0)] * 2, "label": [[0, 1], [1]]}
    datasets.Dataset.from_dict(content).save_to_disk(str(tmp_path / "several"))
    several = refusal(huggingface_module, path=str(tmp_path / "several"))
    assert "data.label_column=label: expected a text or an integer for each image, found [0, 1]" in several


def test_images_that_can_not_be_decoded_are_listed(huggingface_module: Make, tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    huggingface_module(path=str(tmp_path / "data"), cache=str(tmp_path / "first"))
    for level in (3, 6):
        (tmp_path / "data" / "train" / "ant" / f"{level:02}.png").write_bytes(b"nothing")
    message = refusal(huggingface_module)
    assert "2 images can't be used:\n  train/" in message


def test_the_code_of_a_data_set_is_not_run(huggingface_module: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "datasets can't load it" in refusal(huggingface_module)
    assert not (tmp_path / "ran").exists()


def test_an_old_package_that_runs_code_is_refused(
    huggingface_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_saved(tmp_path / "data")
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    assert "datasets 3.6.0 runs the code of a data set" in refusal(huggingface_module)


def test_a_split_has_one_purpose(huggingface_module: Make, tmp_path: Path) -> None:
    write_saved(tmp_path / "data")
    twice = {"train": ["train"], "val": ["test"], "test": ["test"]}
    refused = refusal(huggingface_module, splits=twice)
    assert "the split test would be both val and test: set data.splits.test=[], or another data.splits.val" in refused
    assert "train would be both train and val" in refusal(huggingface_module, splits=twice | {"val": ["train"]})


def test_labels_of_each_split_are_those_of_its_own_class_names(huggingface_module: Make, tmp_path: Path) -> None:
    reordered = dataset(range(12)).cast_column("label", datasets.ClassLabel(names=CLASSES[::-1]))
    datasets.DatasetDict({"train": dataset(range(30)), "test": reordered}).save_to_disk(str(tmp_path / "data"))
    arrays = huggingface_module().arrays
    assert arrays.test_labels.tolist() == [2 - level % 3 for level in levels(arrays.test_images)]
    other = dataset(range(12)).cast_column("label", datasets.ClassLabel(names=["ant", "bee", "dog"]))
    datasets.DatasetDict({"train": dataset(range(30)), "test": other}).save_to_disk(str(tmp_path / "other"))
    refused = refusal(huggingface_module, path=str(tmp_path / "other"))
    assert refused == "data.label_column=label: expected one of ant, bee, cat; found 'dog' in the test split"


def test_a_reader_of_the_current_folder_is_refused(
    huggingface_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name in packaged_modules._PACKAGED_DATASETS_MODULES:
        refused = refusal(huggingface_module, path=name)
        assert refused.startswith(f"data.path={name}: is one of the readers of files in datasets, expected a folder")
    (tmp_path / "here").rename(tmp_path / "csv")
    monkeypatch.chdir(tmp_path)
    assert huggingface_module(path="csv").info.num_test == 12


def test_what_is_no_image_is_refused_in_plain_words(huggingface_module: Make, tmp_path: Path) -> None:
    content = {"image": [image(0), None, image(2)] * 4, "label": [0, 1, 2] * 4}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "data"))
    refused = refusal(huggingface_module)
    assert "4 images can't be used:\n  train/1 is absent (null)\n  train/4 is absent (null)\n" in refused
    no_images = refusal(huggingface_module, image_column="label")
    assert no_images == "data.image_column=label: expected a column of images, found ClassLabel in the train split"


def write_table(path: Path, last: dict[str, Any], split: str = "train", labels: list[Any] | None = None) -> None:
    """Write parquet of twelve images, without the package `datasets`, and of a last one that may be anything."""
    file = io.BytesIO()
    image(0).save(file, "PNG")
    rows = [{"bytes": file.getvalue(), "path": None}] * 12 + [last]
    images = pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    table = pyarrow.table({"image": images, "label": labels or [row % 3 for row in range(13)]})
    path.mkdir(exist_ok=True)
    parquet.write_table(table, path / f"{split}.parquet")


def test_paths_in_the_data_are_of_images_of_the_data_set(
    huggingface_module: Make, tmp_path: Path, limited_memory: None
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "private.png").write_bytes(b"private")
    os.mkfifo(data / "pipe.png")
    (data / "zeros.png").symlink_to("/dev/zero")
    with (data / "sparse.png").open("wb") as file:
        file.truncate(MAX_MEMBER_BYTES + 1)
    reasons = {
        None: "is absent (null)",
        f"{tmp_path}/private.png": f"is a path outside of data.path, {tmp_path}/private.png: write the images",
        f"{data}/../private.png": f"is a path outside of data.path, {tmp_path}/private.png: write the images",
        "/dev/zero": "is a path outside of data.path, /dev/zero: write the images",
        f"{data}/zeros.png": f"can't be read: {data}/zeros.png is not a plain file",
        f"{data}/pipe.png": f"can't be read: {data}/pipe.png is not a plain file",
        f"{data}/sparse.png": f"can't be read: {data}/sparse.png has 268,435,457 bytes, more than an image",
        f"{data}/a\0b": "can't be read: ",
        f"{data}/nothing.png": "can't be read: ",
    }
    for path, reason in reasons.items():
        write_table(data, {"bytes": None, "path": path})
        assert f"1 images can't be used:\n  train/12 {reason}" in refusal(huggingface_module)
    image(200).save(data / "whole.png")
    write_table(data, {"bytes": None, "path": f"{data}/whole.png"})
    assert levels(huggingface_module().arrays.train_images)[12] == 200


def test_labels_of_the_test_that_are_lists_are_refused(huggingface_module: Make, tmp_path: Path) -> None:
    null = {"bytes": None, "path": None}
    for split, labels in (("train", [row % 3 for row in range(13)]), ("test", [[row % 3] for row in range(13)])):
        write_table(tmp_path / split, null, labels=labels)
        folder = datasets.Dataset.from_parquet(str(tmp_path / split / "train.parquet"), cache_dir=str(tmp_path / "hf"))
        folder.save_to_disk(str(tmp_path / "data" / split))
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    refused = refusal(huggingface_module)
    assert (
        refused == "data.label_column=label: expected a text or an integer for each image, found [0] in the test split"
    )


def test_a_copied_folder_has_its_own_name(huggingface_module: Make, tmp_path: Path) -> None:
    write_saved(tmp_path / "data")
    assert huggingface_module().info.name == "data"
    shutil.copytree(tmp_path / "data", tmp_path / "pets")
    assert huggingface_module(path=str(tmp_path / "pets")).info.name == "pets"


def test_another_package_of_the_same_name_is_named(
    huggingface_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets")
    refused = refusal(huggingface_module)
    assert f"{tmp_path / 'datasets'} hides the package datasets of Hugging Face: rename it" in refused


def test_other_content_under_the_same_recorded_fingerprint_is_decoded(huggingface_module: Make, tmp_path: Path) -> None:
    write_saved(tmp_path / "data")
    before = huggingface_module()
    splits(train=range(10, 40), test=range(30, 42)).save_to_disk(str(tmp_path / "other"))
    (arrow,) = (tmp_path / "other" / "train").glob("*.arrow")
    arrow.rename(tmp_path / "data" / "train" / arrow.name)
    assert huggingface_module().info.fingerprint != before.info.fingerprint
    info = tmp_path / "data" / "train" / "dataset_info.json"
    info.write_text(info.read_text().replace('"cat"', '"cow"'))
    test = tmp_path / "data" / "test" / "dataset_info.json"
    test.write_text(test.read_text().replace('"cat"', '"cow"'))
    assert huggingface_module().info.class_names == ("ant", "bee", "cow")


SMALL = (
    "data=huggingface", "data.image_size=16", "data.batch_size=8", "data.crop_padding=2", "data.mixup=0.2",
    "model.widths=[2,4]", "model.hidden=[8]", "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
    "threads=1",
)  # fmt: skip


def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    overrides = (*SMALL, f"data.path={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}")
    whole, config = new_run(tmp_path / "whole", *overrides)
    train_until(whole, config, None)
    stopped, config = new_run(tmp_path / "stopped", *overrides)
    assert train_until(stopped, config, 3) is None
    train_until(stopped, config, None)
    assert differences(outcome(whole), outcome(stopped)) == []


def test_by_the_command_line(litlab: Command, tmp_path: Path) -> None:
    write_parquet(tmp_path / "project" / "data")
    trained = litlab("train", *SMALL, "data.path=data", "name=hugging")
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "project" / "outputs" / "hugging").iterdir()
    assert f"path: {tmp_path / 'project' / 'data'}" in (run / "config.yaml").read_text()
    (tmp_path / "project" / "data").rename(tmp_path / "project" / "moved")
    evaluated = litlab("evaluate", str(run), "--json", "--set", f"data.path={tmp_path / 'project' / 'moved'}")
    assert evaluated.returncode == 0, evaluated.stderr
    assert '"same_data": true' in evaluated.stdout
