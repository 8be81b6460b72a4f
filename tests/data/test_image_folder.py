import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.damage import encode
from support.images import write_folder

from litlab.data.image_folder import ImageFolder
from litlab.errors import UserError

Make = Callable[..., ImageFolder]
PIXELS = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write 5 + 2 images for each of three classes, with files that are no images."""
    root = tmp_path / "images"
    write_folder(root, 5, 2)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"no image")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".DS_Store").write_bytes(b"no folder")
    (root / "README.md").write_text("no folder")
    return root


def decoded(path: Path) -> np.ndarray:
    """Decode an image to 3 x 24 x 24 pixels by Pillow."""
    pixels = Image.open(path).resize((24, 24), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def prepared(module: ImageFolder) -> ImageFolder:
    module.prepare_data()
    module.setup()
    return module


def test_rows_are_sorted_by_class_and_name(images: Path, folder_module: Make) -> None:
    module = prepared(folder_module(val_size=3))
    assert (module.info.name, module.info.class_names) == ("images", ("cat", "dog", "emu"))
    assert module.arrays.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert module.arrays.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    paths = sorted((images / "train").glob("*/0[0-9].*"))
    for pixels, path in zip(module.arrays.train_images, paths, strict=True):
        np.testing.assert_array_equal(pixels.numpy(), decoded(path))


@pytest.mark.parametrize(("num_train", "num_val"), [(1, 0), (2, 1), (20, 6)])
def test_the_default_validation_fits_any_size(
    folder_module: Make, tmp_path: Path, num_train: int, num_val: int
) -> None:
    default = yaml.safe_load((Path(__file__).parents[2] / "conf" / "data" / "base" / "files.yaml").read_text())
    write_folder(tmp_path / "images", num_train, 1)
    module = prepared(folder_module(val_size=default["val_size"]))
    assert (module.info.num_train, module.info.num_val) == (3 * num_train - num_val, num_val)
    loader = module.val_dataloader()
    assert (sum(batch.num_valid for batch in loader) if num_val else loader) == (num_val or [])


def packed(root: Path, suffix: str = "zip", top: str = "") -> str:
    path, members = root.parent / f"packed.{suffix}", sorted(root.rglob("*"), reverse=True)
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.write(member, f"{top}{member.relative_to(root)}")
            archive.writestr("__MACOSX/train/cat/._0.png", b"no image")
    else:
        with tarfile.open(path, "w:xz") as tar:
            for member in members:
                tar.add(member, f"{top}{member.relative_to(root)}", recursive=False)
    return str(path)


@pytest.mark.parametrize("top", ["", "./", "my-images-main/"])
@pytest.mark.parametrize("suffix", ["zip", "tar.xz"])
def test_an_archive_is_the_same_data_set(images: Path, folder_module: Make, suffix: str, top: str) -> None:
    folder = prepared(folder_module(val_size=3))
    archive = prepared(folder_module(val_size=3, root=packed(images, suffix, top)))
    assert archive.info.name == "packed"
    assert archive.info.fingerprint == folder.info.fingerprint
    assert torch.equal(archive.arrays.train_images, folder.arrays.train_images)


def test_decoded_once_and_again_when_a_file_changes(images: Path, folder_module: Make, tmp_path: Path) -> None:
    first = prepared(folder_module(val_size=3)).info.fingerprint
    entries = set((tmp_path / "cache").iterdir())
    assert prepared(folder_module(val_size=3)).info.fingerprint == first
    assert set((tmp_path / "cache").iterdir()) == entries
    Image.fromarray(PIXELS).save(images / "train" / "cat" / "01.png")
    assert prepared(folder_module(val_size=3)).info.fingerprint != first
    assert prepared(folder_module(val_size=3, image_size=16)).info.image_shape == (3, 16, 16)


def test_many_large_images_through_threads(images: Path, folder_module: Make) -> None:
    random = np.random.default_rng(4)
    for number in range(100):
        pixels = random.integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "train" / "dog" / f"large-{number:03}.png")
    module = prepared(folder_module(val_size=0))
    paths = sorted((images / "train" / "dog").iterdir())
    rows = module.arrays.train_images[module.arrays.train_labels == 1]
    assert len(rows) == len(paths) == 105
    for row, path in zip(rows, paths, strict=True):
        np.testing.assert_array_equal(row.numpy(), decoded(path))


def test_errors_name_file_or_class(images: Path, folder_module: Make, tmp_path: Path) -> None:
    def refused(message: str, **keys: object) -> None:
        with pytest.raises(UserError, match=message):
            prepared(folder_module(**{"val_size": 3, **keys}))
        cache = tmp_path / "cache"
        assert not cache.exists() or list(cache.iterdir()) == []

    refused("data.root=.*/nowhere does not exist: expected train/<class>", root=str(tmp_path / "nowhere"))
    refused("README.md is neither a folder nor a tar or zip archive", root=str(images / "README.md"))
    refused("has no folder train", root=str(tmp_path))
    bad = images / "train" / "dog" / "bad.jpg"
    image = Image.fromarray(PIXELS)
    for content in (b"", b"no image", encode(image, "JPEG")[:300], encode(image, "BMP")):
        bad.write_bytes(content)
        refused("train/dog/bad.jpg can't be read as a JPEG, PNG or WebP image")
    refused("packed.zip: 1 of 22 images can't be used:\n  train/dog/bad.jpg can't be read", root=packed(images))
    bad.unlink()
    (images / "train" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    refused("gone.png can't be read: No such file")
    (images / "train" / "dog" / "gone.png").unlink()
    shutil.move(images / "test" / "emu", images / "test" / "gnu")
    refused("emu has images in train but none in test: every class needs both")
    shutil.copytree(images / "test" / "gnu", images / "test" / "emu")
    refused("gnu has images in test but none in train")
    for split in ("train", "test"):
        for class_name in ("emu", "gnu", "dog"):
            shutil.rmtree(images / split / class_name, ignore_errors=True)
    refused("has only the class cat: at least two are needed")
    shutil.rmtree(images / "test" / "cat")
    refused(r"has no images in test/<class>/ \(left out: 1 file \(\.txt\).*: expected train/<class>/\*")
