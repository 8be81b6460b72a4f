"""Images of one's own: `train/<class>/*` and `test/<class>/*`, a folder or an archive of one."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import numpy as np

from litlab.data.arrays import ImageArrays
from litlab.data.cache import ArrayCache, DecodingPlan
from litlab.data.image_files import Listing, Places, check_root, decode_images, stamps
from litlab.data.image_settings import ImageSettings
from litlab.data.module import ImageDataModule
from litlab.data.stream import ImageReader, StoredImages, StreamCache


class ImageFolder(ImageDataModule):
    """JPEG, PNG and WebP images of any size; classes are sorted by name, other and hidden files ignored.

    root: a folder, or a tar or zip archive (never unpacked to disk).
    image_size: height and width in pixels that all images are resized to.
    cache: folder of the decoded arrays; decoded anew when a file's size or time of change differs.
    storage: "memory" for decoded arrays; "stream" to decode images anew whenever they are needed, from a folder or a
        zip archive.
    num_workers: processes that decode then; 0 for none but the one that trains.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int,
        cache: str,
        storage: Literal["memory", "stream"],
        num_workers: int,
        **settings: Unpack[ImageSettings],
    ) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser().resolve()
        self.image_size = image_size
        self.cache = ArrayCache(Path(cache).expanduser())
        self.storage = storage
        self.num_workers = num_workers

    @cached_property
    def _key(self) -> str:
        check_root(self.root)
        content = repr((str(self.root), self.image_size, stamps(self.root)))
        return f"image_folder-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @cached_property
    def _listing(self) -> Listing:
        return Listing.of(self.root)

    def prepare_data(self) -> None:
        """Raises UserError, naming the file or class, for what can't be used."""
        if self.storage == "memory":
            self.cache.build(self._key, self._plan)
        else:
            key = self._key
            reader = ImageReader(self.root, self.image_size)
            StreamCache(self.cache.folder).build(key, reader, self._listing)

    def load_images(self) -> ImageArrays | StoredImages:
        """From the cache, mapped into memory, or where they are. LookupError where `prepare_data` didn't run."""
        if self.storage == "memory":
            return self.cache.load(self._key)
        facts = StreamCache(self.cache.folder).load(self._key)
        return StoredImages.of(self._listing, facts, ImageReader(self.root, self.image_size), self.num_workers)

    def _plan(self) -> DecodingPlan:
        listing = Listing.of(self.root)
        train, test = listing.train, listing.test

        def fill(
            train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
        ) -> None:
            train_labels[:], test_labels[:] = train.labels, test.labels
            decode_images(self.root, Places((train.paths, train_images), (test.paths, test_images)))

        return DecodingPlan(
            name=listing.name,
            class_names=listing.class_names,
            image_shape=(3, self.image_size, self.image_size),
            num_train=len(train.paths),
            num_test=len(test.paths),
            fill=fill,
        )
