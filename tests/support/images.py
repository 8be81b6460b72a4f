"""Folders of small images, made by the tests themselves."""

from pathlib import Path

import numpy as np
from PIL import Image


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
