"""JPEG files in a folder, for programs that read them one at a time: `train/<class>/*` and `test/<class>/*`."""

import shutil
from pathlib import Path

from PIL import Image
from torch import Tensor

from benchmarks.data_path import prepared
from benchmarks.settings import Settings

QUALITY = 75


def in_folder(settings: Settings, folder: Path) -> Path:
    """Return a folder with all images of the settings, creating `folder` if they are not in a folder yet."""
    if settings.root is None:
        return _drawn(settings.drawn, folder)
    root = Path(settings.root).expanduser().resolve()
    if root.is_dir():
        return root
    folder.mkdir(exist_ok=True)
    shutil.unpack_archive(root, folder, **({} if root.suffix == ".zip" else {"filter": "data"}))
    return folder if (folder / "train").is_dir() else next(folder.glob("*/train")).parent


def _drawn(overrides: tuple[str, ...], folder: Path) -> Path:
    """Write litlab's synthetic images as JPEG files."""
    arrays = prepared(*overrides, "data.val_size=0").arrays
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"{split}_images"), getattr(arrays, f"{split}_labels")
        _write(images, labels.tolist(), arrays.class_names, folder / split)
    return folder


def _write(images: Tensor, labels: list[int], class_names: tuple[str, ...], folder: Path) -> None:
    for name in class_names:
        (folder / name).mkdir(parents=True)
    for number, (pixels, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels, strict=True)):
        Image.fromarray(pixels).save(folder / class_names[label] / f"{number:06d}.jpg", quality=QUALITY)
