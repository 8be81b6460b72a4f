"""Splits of images in folders as people have them: what is there is used, what is missing is drawn."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import FOLDERS, gray_image

from litlab.data.image_folder import ImageFolder
from litlab.data.loader import BatchLoader
from litlab.errors import UserError

Make = Callable[..., ImageFolder]
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes images of two classes into a folder below tmp_path/images, each of another gray."""
    levels: Iterator[int] = count()

    def written(folder: str, number: int, classes: tuple[str, ...] = ("cat", "dog")) -> None:
        for class_name in classes:
            path = tmp_path / "images" / folder / class_name
            path.mkdir(parents=True, exist_ok=True)
            for image in range(number):
                (path / f"{image:02}.png").write_bytes(gray_image(next(levels)))

    return written


@pytest.fixture
def make(folder_module: Make) -> Make:
    """Return a factory of data modules that are set up; validation is a fifth unless there is a folder of it."""

    def made(**changes: Any) -> ImageFolder:
        module = folder_module(**{"val_size": 0.2, "batch_size": 4, **changes})
        module.prepare_data()
        module.setup()
        return module

    return made


def levels(loader: BatchLoader | list[BatchLoader]) -> list[int]:
    """Return the gray levels of the images that a loader gives, in order."""
    batches = [batch for part in (loader if isinstance(loader, list) else [loader]) for batch in part]
    return [int(image[0, 0, 0]) for batch in batches for image in batch.images]


def used(module: ImageFolder) -> tuple[list[int], list[int], list[int]]:
    """Return the gray levels of the training images, sorted, of validation and of test."""
    return sorted(levels(module.train_dataloader())), levels(module.val_dataloader()), levels(module.test_dataloader())


def sizes(module: ImageFolder) -> tuple[int, int, int]:
    return module.info.num_train, module.info.num_val, module.info.num_test


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_a_validation_folder_is_the_validation_split(make: Make, write: Write, name: str, storage: str) -> None:
    write("train", 5)
    write(name, 2)
    write("test", 3)
    module = make(storage=storage)
    assert used(module) == (list(range(10)), list(range(10, 14)), list(range(14, 20)))
    assert sizes(module) == (10, 4, 6)
    (note,) = module.info.notes
    assert note.startswith("validation on the 4 images of the validation split")
    ignored = make(storage=storage, folders=FOLDERS | {"val": []})
    assert used(ignored)[2] == list(range(14, 20))
    assert sizes(ignored) == (8, 2, 6)
    assert set(used(ignored)[1]) < set(range(10))
    assert ignored.info.notes == ()


def test_another_border_of_train_and_validation_is_another_data_set(make: Make, write: Write, tmp_path: Path) -> None:
    write("train", 5, ("cat",))
    write("train", 5, ("dog",))
    write("val", 1, ("dog",))
    images = tmp_path / "images"
    before = make(classes=["cat", "dog"]).info.fingerprint
    (images / "train" / "dog" / "04.png").rename(images / "val" / "dog" / "-1.png")
    module = make(classes=["cat", "dog"])
    assert sizes(module)[1] == 2
    assert module.info.fingerprint != before


@pytest.mark.parametrize("folders", [("train", "val"), ("train",), ("",)])
def test_without_a_test_folder_one_is_drawn_or_there_is_none(
    make: Make, write: Write, folders: tuple[str, ...]
) -> None:
    for folder in folders:
        write(folder, 10)
    module = make()
    train, val, test = used(module)
    own = list(range(20, 40)) if "val" in folders else None
    assert sorted([*train, *test, *([] if own else val)]) == list(range(20))
    assert sizes(module) == (len(train), len(val), 4)
    assert val == (own or val)
    assert sorted(level // 10 for level in test) == [0, 0, 1, 1], "two of each class"
    assert len(val) == (20 if own else 3), "a fifth of the 16 that are left"
    assert any("has no test split: data.test_size=0.2 draws 4 of its images" in note for note in module.info.notes)
    assert ("no folders of splits: the folders are the classes (cat, dog)" in module.info.notes) == (folders == ("",))
    without = make(test_size=0)
    assert (without.test_dataloader(), without.info.num_test) == ([], 0)
    assert any("has no test split: no test, as data.test_size=0" in note for note in without.info.notes)
    assert without.info.fingerprint == module.info.fingerprint, "the same images, split in another way"


def test_drawn_splits_are_those_of_the_seeds_on_any_file_system(make: Make, write: Write, tmp_path: Path) -> None:
    write("", 10)
    images = tmp_path / "images"
    expected = used(make())
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        for path in sorted(images.glob("*/*.png"), reverse=True):
            packed.write(path, f"flowers/{path.relative_to(images)}")
    assert used(make(root=str(tmp_path / "packed.zip"))) == expected
    assert used(make(storage="stream")) == expected
    assert used(make(seed=7)) == expected
    assert used(make(val_seed=7))[2] == expected[2]
    assert used(make(val_seed=7))[1] != expected[1]
    assert used(make(test_seed=7))[2] != expected[2]


def test_mean_and_deviation_are_of_the_training_images_alone(make: Make, write: Write) -> None:
    write("train", 10)
    write("val", 3)
    module = make()
    levels = torch.tensor(used(module)[0]).double() / 255
    assert len(levels) == 16, "without the images of the validation folder, and those that are drawn for the test"
    assert module.info.mean == pytest.approx([float(levels.mean())] * 3, abs=1e-7)
    assert module.info.std == pytest.approx([float(levels.std(correction=0))] * 3, abs=1e-7)


def test_names_of_folders_are_found_in_any_case_and_are_settings(make: Make, write: Write, tmp_path: Path) -> None:
    write("Train", 5)
    write("TEST", 2)
    assert used(make())[2] == list(range(10, 14))
    (tmp_path / "images" / "TEST").rename(tmp_path / "images" / "holdout")
    assert used(make(folders=FOLDERS | {"test": ["holdout"]}))[2] == list(range(10, 14))
    write("val", 1)
    write("valid", 1)
    with pytest.raises(UserError, match=r"folder of two splits, val and test: change data\.folders\.val, or set"):
        make(folders=FOLDERS | {"val": ["HoldOut"], "test": ["holdout"]})
    with pytest.raises(UserError, match=r"folders val and valid for one split: .* data\.folders\.val=\[val\]"):
        make()
    assert used(make(folders=FOLDERS | {"val": ["valid"]}))[1] == [16, 17]


def test_test_images_without_classes_are_left_out(make: Make, write: Write, tmp_path: Path) -> None:
    write("train", 5)
    folder = tmp_path / "images" / "test"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(gray_image(9))
    module = make()
    assert sizes(module) == (6, 2, 2)
    assert module.info.notes[0] == "left out: 2 images of test that are in no class folder"
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"no images in test/<class>/.*or set data\.folders\.test=\[\]"):
        make()
    assert sizes(make(folders=FOLDERS | {"test": []})) == (6, 2, 2)


def test_classes_are_chosen_by_name(make: Make, write: Write, tmp_path: Path) -> None:
    write("train", 5, ("ant", "bee", "cat"))
    write("test", 1, ("bee", "cat", "dog"))

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=message):
            make(**changes)

    refused(r"ant has images in train but none in test: .*'data.classes=\[bee,cat\]' leaves it out, .*ant,bee,cat")
    refused(r"data\.classes=\[cat,cat\]: a class is named twice", classes=["cat", "cat"])
    refused(r"data\.classes: .* has no images of these classes in test", classes=["ant"])
    refused(r"data\.classes: no training images of dog in .*images; it has ant, bee, cat", classes=["cat", "dog"])
    module = make(classes=["cat", "bee"])
    assert (module.info.class_names, module.arrays.test_labels.tolist()) == (("cat", "bee"), [1, 0])
    assert module.info.notes == ("left out: 6 images of classes not used (ant, dog)",)
    assert sizes(make(classes=["ant", "bee", "cat"])) == (12, 3, 2)
    shutil.rmtree(tmp_path / "images" / "train" / "ant")
    refused(r"dog has images in test but none in train: .*'data.classes=\[bee,cat\]' leaves it out$")


def test_an_empty_class_folder_is_left_out_with_a_note(make: Make, write: Write, tmp_path: Path) -> None:
    write("train", 5)
    write("test", 1)
    (tmp_path / "images" / "train" / "emu").mkdir()
    module = make()
    assert module.info.class_names == ("cat", "dog")
    assert module.info.notes == ("left out: class folders without images (train/emu)",)


@pytest.mark.parametrize("pack", [False, True])
def test_a_folder_around_the_splits_or_one_too_many_is_found_or_named(
    make: Make, write: Write, tmp_path: Path, pack: bool
) -> None:
    def root(folder: Path) -> str:
        return shutil.make_archive(str(tmp_path / "packed"), "zip", folder) if pack else str(folder)

    write("download/flowers/train", 5)
    write("download/flowers/test", 2)
    images = tmp_path / "images"
    (images / "README.md").write_text("no folder")
    (images / "__MACOSX").mkdir()
    assert sizes(make(root=root(images))) == (8, 2, 4)
    write("download/notes", 1, ("figures",))
    with pytest.raises(UserError, match=r"has no folder train, but .*download/flowers has folders of splits: set data"):
        make(root=root(images))
    if not pack:
        flowers = images / "download" / "flowers"
        with pytest.raises(UserError, match=r"train is the folder of one split: set data\.root=.*flowers, or"):
            make(root=str(flowers / "train"))
        assert sizes(make(root=str(flowers / "train"), folders=FOLDERS | {"train": []})) == (6, 2, 2)


def test_folders_within_folders_are_no_classes(make: Make, write: Write) -> None:
    write("images", 5)
    write("masks", 5)
    with pytest.raises(UserError, match=r"images in folders within folders only, such as images/cat/00\.png: set"):
        make()


def test_folds_leave_out_the_test_images_and_refuse_a_validation_folder(make: Make, write: Write) -> None:
    write("train", 10)
    modules = [make(folds=4, fold=fold) for fold in range(4)]
    test = used(modules[0])[2]
    assert len(test) == 4
    for module in modules:
        assert used(module)[2] == test
    assert sorted(level for module in modules for level in [*used(module)[1], *test]) == sorted([*range(20), *3 * test])
    write("val", 3)
    with pytest.raises(
        UserError, match=r"data.folds=4: images has 6 validation images .* data.folders.val=\[\] leaves"
    ):
        make(folds=4, fold=0)
    assert len(used(make(folds=4, fold=0, folders=FOLDERS | {"val": []}))[1]) == 4
