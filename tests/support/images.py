"""Folders of small images, made by the tests themselves."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from litlab.data.image_listing import Layout

FOLDERS = {"train": ["train", "training"], "val": ["val", "valid", "validation"], "test": ["test", "testing"]}
LAYOUT = Layout({split: tuple(names) for split, names in FOLDERS.items()})


def write_folder(root: Path, num_train: int = 14, num_test: int = 5) -> None:
    """PNG and JPEG images of three classes, of random sizes and pixels."""
    random = np.random.default_rng(3)
    for split, num_images in (("train", num_train), ("test", num_test)):
        for class_name in ("cat", "dog", "emu"):
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for number in range(num_images):
                pixels = random.integers(0, 256, (*random.integers(10, 40, 2), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.{'png' if number % 2 else 'jpg'}")


def gray_image(level: int) -> bytes:
    """Return a PNG file of one gray level, by which a test knows an image again."""
    file = io.BytesIO()
    Image.new("L", (24, 24), level).save(file, "PNG")
    return file.getvalue()
