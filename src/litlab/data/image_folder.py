"""Images of one's own: `train/<class>/*` and `test/<class>/*`, a folder or an archive of one."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from litlab.data.archive import is_archive
from litlab.data.arrays import ImageArrays
from litlab.data.cache import ArrayCache, DecodingPlan
from litlab.data.image_files import ImageFile, decode_images, list_images, stamps
from litlab.data.module import ImageDataModule
from litlab.errors import UserError

_LAYOUT = "expected train/<class>/* and test/<class>/* with JPEG, PNG or WebP images"


class ImageFolder(ImageDataModule):
    """JPEG, PNG and WebP images of any size; classes are sorted by name, other and hidden files ignored.

    root: a folder, or a tar or zip archive (never unpacked to disk).
    image_size: height and width in pixels that all images are resized to.
    cache: folder of the decoded arrays; decoded anew when a file's size or time of change differs.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int,
        cache: str,
        batch_size: int,
        val_size: int | float,
        val_seed: int,
        seed: int,
        crop_padding: int,
        flip: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_size=val_size,
            val_seed=val_seed,
            seed=seed,
            crop_padding=crop_padding,
            flip=flip,
            mean=mean,
            std=std,
        )
        self.root = Path(root).expanduser().resolve()
        self.image_size = image_size
        self.cache = ArrayCache(Path(cache).expanduser())

    @cached_property
    def _key(self) -> str:
        _check_root(self.root)
        content = repr((str(self.root), self.image_size, stamps(self.root)))
        return f"image_folder-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def prepare_data(self) -> None:
        """Raises UserError, naming the file or class, for what can't be used."""
        self.cache.build(self._key, self._plan)

    def load_arrays(self) -> ImageArrays:
        """From the cache, mapped into memory. Raises LookupError where `prepare_data` didn't run."""
        return self.cache.load(self._key)

    def _plan(self) -> DecodingPlan:
        files = sorted(set(list_images(self.root)))
        class_names = checked_classes(self.root, files)
        train, test = ([file for file in files if file.split == split] for split in ("train", "test"))

        def fill(
            train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
        ) -> None:
            train_labels[:] = [class_names.index(file.class_name) for file in train]
            test_labels[:] = [class_names.index(file.class_name) for file in test]
            places = {file.stored: train_images[row] for row, file in enumerate(train)}
            places |= {file.stored: test_images[row] for row, file in enumerate(test)}
            decode_images(self.root, places)

        return DecodingPlan(
            name=self.root.name.split(".")[0] if is_archive(self.root) else self.root.name,
            class_names=class_names,
            image_shape=(3, self.image_size, self.image_size),
            num_train=len(train),
            num_test=len(test),
            fill=fill,
        )


def _check_root(root: Path) -> None:
    if not root.exists():
        raise UserError(f"data.root={root} does not exist: {_LAYOUT}, in a folder or an archive")
    if root.is_dir():
        for split in ("train", "test"):
            if not (root / split).is_dir():
                raise UserError(f"data.root={root} has no folder {split}: {_LAYOUT}")
    elif not is_archive(root):
        raise UserError(f"data.root={root} is neither a folder nor a tar or zip archive by its name: {_LAYOUT}")


def checked_classes(root: Path, files: Sequence[ImageFile]) -> tuple[str, ...]:
    """The sorted names of the classes. Raises UserError where the two splits can't be used together."""
    train, test = ({file.class_name for file in files if file.split == split} for split in ("train", "test"))
    for split, classes in (("train", train), ("test", test)):
        if not classes:
            raise UserError(f"{root} has no images in {split}/<class>/: {_LAYOUT}")
    for have, lack, classes in (("train", "test", train - test), ("test", "train", test - train)):
        if classes:
            raise UserError(
                f"{root}: {', '.join(sorted(classes))} has images in {have} but none in {lack}: every class needs both"
            )
    if len(train) < 2:
        raise UserError(f"{root} has only the class {', '.join(train)}: at least two are needed")
    return tuple(sorted(train))
