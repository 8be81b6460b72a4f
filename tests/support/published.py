"""Small data sets in the formats in which those of torchvision are published."""

import bz2
import gzip
import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets
from PIL import Image

NUM_TRAIN, NUM_TEST = 40, 20


Split = tuple[np.ndarray, np.ndarray]  # images, n c h w, and labels


@dataclass(frozen=True)
class Content:
    """Images, n c h w, and labels of a small data set, with what a data module has to make of it.

    Attributes:
        names: Names of the classes.
        num_val: Number of images at the end of the training split that are an official validation split.
    """

    train: Split
    test: Split
    names: tuple[str, ...]
    num_val: int = 0


def random_images(num_images: int, shape: tuple[int, ...], num_classes: int, seed: int) -> Split:
    """Draw images with labels in which each class occurs."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(num_images) % num_classes)
    return random.integers(0, 256, (num_images, *shape), dtype=np.uint8), labels


def _both(shape: tuple[int, ...], num_classes: int) -> tuple[Split, ...]:
    return random_images(NUM_TRAIN, shape, num_classes, 1), random_images(NUM_TEST, shape, num_classes, 2)


def write_cifar100(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write pickles; their checksums are those that torchvision expects, since it checks them."""
    train, test = _both((3, 32, 32), 10)
    names = [f"thing {number}" for number in range(10)]
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    contents = {"meta": {"fine_label_names": names, "coarse_label_names": ["all"]}}
    for name, (images, labels) in (("train", train), ("test", test)):
        contents[name] = {"data": images.reshape(len(images), -1), "fine_labels": labels.tolist()}
    md5 = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    patch.setattr(torchvision.datasets.CIFAR100, "train_list", [["train", md5["train"]]])
    patch.setattr(torchvision.datasets.CIFAR100, "test_list", [["test", md5["test"]]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5["meta"]}
    patch.setattr(torchvision.datasets.CIFAR100, "meta", meta)
    return Content(train, test, tuple(names))


def idx(array: np.ndarray) -> bytes:
    """Return the IDX file of an array of bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_files(train: Split, test: Split) -> dict[str, bytes]:
    """Return the four files of MNIST by their names."""
    files = {}
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(images[:, 0])
        files[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    return files


def write_mnist(root: Path, patch: pytest.MonkeyPatch | None = None) -> Content:
    """Write the unpacked files."""
    train, test = _both((1, 28, 28), 10)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in idx_files(train, test).items():
        (folder / name).write_bytes(content)
    return Content(train, test, tuple(torchvision.datasets.MNIST.classes))


def write_emnist(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write the letters, whose labels begin with 1."""
    train, test = random_images(52, (1, 28, 28), 26, 1), random_images(26, (1, 28, 28), 26, 2)
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for split, (images, labels) in (("train", train), ("test", test)):
        (folder / f"emnist-letters-{split}-images-idx3-ubyte").write_bytes(idx(images[:, 0]))
        (folder / f"emnist-letters-{split}-labels-idx1-ubyte").write_bytes(idx(labels + 1))
    return Content(train, test, tuple("abcdefghijklmnopqrstuvwxyz"))


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write MATLAB files, in which 0 has the label 10."""
    train, test = _both((3, 32, 32), 10)
    root.mkdir(parents=True)
    files = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        path = root / f"{split}_32x32.mat"
        numbers = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": numbers})
        files[split] = ["http://127.0.0.1:9/nothing", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    patch.setattr(torchvision.datasets.SVHN, "split_list", files)
    return Content(train, test, tuple("0123456789"))


def write_usps(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write bzip2 files of texts: labels from 1, and pixels from -1 to 1."""
    train, test = _both((1, 16, 16), 10)
    root.mkdir(parents=True)
    for name, (images, labels) in (("usps.bz2", train), ("usps.t.bz2", test)):
        images[:] = images // 255 * 255  # or rounding would change some
        lines = [
            " ".join([str(label + 1), *(f"{place}:{value / 127.5 - 1:.6f}" for place, value in enumerate(pixels, 1))])
            for label, pixels in zip(labels, images.reshape(len(images), -1), strict=True)
        ]
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    return Content(train, test, tuple("0123456789"))


def write_stl10(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write binary files, whose labels begin with 1, and whose pixels are in the order of columns."""
    train, test = random_images(20, (3, 96, 96), 10, 1), random_images(10, (3, 96, 96), 10, 2)
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    names = [f"animal {number}" for number in range(10)]
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    lists: dict[str, list[list[str]]] = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        for part, content in (("X", images.transpose(0, 1, 3, 2)), ("y", (labels + 1).astype(np.uint8))):
            path = folder / f"{split}_{part}.bin"
            path.write_bytes(np.ascontiguousarray(content).tobytes())
            lists.setdefault(split, []).append([path.name, hashlib.md5(path.read_bytes()).hexdigest()])
    patch.setattr(torchvision.datasets.STL10, "train_list", lists["train"])
    patch.setattr(torchvision.datasets.STL10, "test_list", lists["test"])
    return Content(train, test, tuple(names))


def _write_png(path: Path, pixels: np.ndarray, size: tuple[int, int]) -> None:
    """Write an image of one color, which keeps it when it is resized, under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(pixels[:, 0, 0].tolist())).save(path, "PNG")


def _colors(num_images: int, num_classes: int, seed: int) -> Split:
    colors, labels = random_images(num_images, (3, 1, 1), num_classes, seed)
    return np.broadcast_to(colors, (num_images, 3, 24, 20)).copy(), labels


def write_dtd(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write images of different sizes, with lists for training, validation and test."""
    splits = {split: _colors(94, 47, seed) for seed, split in enumerate(("train", "val", "test"))}
    folder = root / "dtd" / "dtd"
    names = tuple(f"texture {number:02}" for number in range(47))
    (folder / "labels").mkdir(parents=True)
    for split, (images, labels) in splits.items():
        paths = [f"{names[label]}/{split}_{row}.jpg" for row, label in enumerate(labels)]
        for row, path in enumerate(paths):
            _write_png(folder / "images" / path, images[row], (30 + row, 140 - row))
        (folder / "labels" / f"{split}1.txt").write_text("".join(f"{path}\n" for path in paths))
    train = tuple(np.concatenate(pair) for pair in zip(splits["train"], splits["val"], strict=True))
    return Content((train[0], train[1]), splits["test"], names, num_val=94)


def write_eurosat(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write one folder for each class, without splits."""
    names = (
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
        "Residential", "River", "SeaLake",
    )  # fmt: skip
    colors, labels = random_images(60, (3, 1, 1), len(names), 1)
    labels = np.sort(labels)
    images = np.broadcast_to(colors, (60, 3, 64, 64)).copy()
    for row, label in enumerate(labels):
        _write_png(root / "eurosat" / "2750" / names[label] / f"{row:03}.jpg", images[row], (64, 64))
    return Content((images, labels), (images[:0], labels[:0]), names)


def write_clevr(root: Path, patch: pytest.MonkeyPatch) -> Content:
    """Write scenes of three to ten objects, for training and validation."""
    splits = {split: _colors(16, 8, seed) for seed, split in enumerate(("train", "val"))}
    folder = root / "clevr" / "CLEVR_v1.0"
    (folder / "scenes").mkdir(parents=True)
    for split, (images, labels) in splits.items():
        scenes = []
        for row, label in enumerate(labels):
            name = f"CLEVR_{split}_{row:06}.png"
            _write_png(folder / "images" / split / name, images[row], (48, 32))
            scenes.append({"image_filename": name, "objects": [{}] * (int(label) + 3)})
        (folder / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    train = tuple(np.concatenate(pair) for pair in zip(splits["train"], splits["val"], strict=True))
    empty = train[0][:0], train[1][:0]
    return Content((train[0], train[1]), empty, tuple(map(str, range(3, 11))), num_val=16)


# Name of a data set -> what writes a small one, and the settings that it needs.
PUBLISHED: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], Content], dict[str, object]]] = {
    "CIFAR100": (write_cifar100, {}),
    "MNIST": (write_mnist, {}),
    "EMNIST": (write_emnist, {"variant": "letters"}),
    "SVHN": (write_svhn, {}),
    "USPS": (write_usps, {}),
    "STL10": (write_stl10, {}),
    "DTD": (write_dtd, {"image_size": [24, 20]}),
    "EuroSAT": (write_eurosat, {}),
    "CLEVRClassification": (write_clevr, {"image_size": [24, 20]}),
}


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the archives that MNIST is distributed as."""
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
