"""Data module of a user's own images: `train/<class>/*` and `test/<class>/*` in a folder or an archive."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch

from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays
from litlab.data.image_decoder import decode_images
from litlab.data.image_listing import ImageListing, OutputRows, check_root, file_stamps
from litlab.data.image_stream import ImageReader, StreamedImages, build_statistics, load_statistics
from litlab.data.module import ImageDataModule, ImageSettings


class ImageFolder(ImageDataModule):
    """JPEG, PNG and WebP images of any size; classes are sorted by name, other and hidden files ignored.

    Args:
        root: A folder, or a tar or zip archive, which is not unpacked to disk.
        image_size: Height and width in pixels that all images are resized to.
        cache: Folder of the decoded arrays; images are decoded again when a file's size or time of change differs.
        storage: "memory" for decoded arrays; "stream" to decode images whenever they are needed, from a folder or a zip
            archive.
        num_workers: Number of processes that decode with "stream"; 0 to decode in the training process.
        settings: Arguments of every data module, see `ImageSettings`.
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
        self.cache = Path(cache).expanduser()
        self.storage = storage
        self.num_workers = num_workers

    @cached_property
    def _key(self) -> str:
        check_root(self.root)
        content = repr((str(self.root), self.image_size, file_stamps(self.root)))
        return f"image_folder-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @cached_property
    def _listing(self) -> ImageListing:
        return ImageListing.of(self.root)

    def prepare_data(self) -> None:
        """Decode all images, or read them once for their statistics, unless the cache has them.

        Raises:
            UserError: for files and classes that can't be used, naming them.
        """
        if self.storage == "memory":
            ArrayCache(self.cache).build(self._key, self._decoding_plan)
        else:
            key = self._key  # which checks the root
            build_statistics(self.cache, key, ImageReader(self.root, self.image_size), self._listing)

    def load_images(self) -> ImageArrays | StreamedImages:
        """Map the arrays in the cache into memory, or list the files that are streamed.

        Raises:
            LookupError: if `prepare_data` was not called.
        """
        if self.storage == "memory":
            return ArrayCache(self.cache).load(self._key)
        listing = self._listing
        return StreamedImages(
            name=listing.name,
            class_names=listing.class_names,
            train_labels=torch.from_numpy(listing.train.labels),
            test_labels=torch.from_numpy(listing.test.labels),
            **load_statistics(self.cache, self._key),
            reader=ImageReader(self.root, self.image_size),
            listing=listing,
            num_workers=self.num_workers,
        )

    def _decoding_plan(self) -> DecodingPlan:
        listing = ImageListing.of(self.root)
        train, test = listing.train, listing.test

        def fill(*arrays: np.ndarray) -> None:
            arrays[1][:], arrays[3][:] = train.labels, test.labels
            decode_images(self.root, OutputRows((train.paths, arrays[0]), (test.paths, arrays[2])))

        return DecodingPlan(
            name=listing.name,
            class_names=listing.class_names,
            image_shape=(3, self.image_size, self.image_size),
            num_train=len(train.paths),
            num_test=len(test.paths),
            fill=fill,
        )
