"""Data modules of a user's own images in a folder or an archive."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch

from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays
from litlab.data.file_module import FileDataModule, FileSettings, height_and_width
from litlab.data.image_decoder import MAX_BIT_DEPTH, decode_images
from litlab.data.image_listing import ImageListing, Layout, OutputRows, check_root, file_stamps, normalized
from litlab.data.image_selection import ImageSelection
from litlab.data.image_stream import ImageReader, StreamedImages, build_statistics, load_statistics
from litlab.data.module import SplitRows, split_fingerprint


class ImageFolder(FileDataModule):
    """JPEG, PNG and WebP images of any size; other and hidden files are ignored.

    The images are in `train/<class>/*`, and in `val/<class>/*` and `test/<class>/*` if there are such folders. Without
    them, validation and test are drawn from the training images. Images in `<class>/*` alone are all training images.

    Args:
        root: A folder, or a tar or zip archive, which is not unpacked to disk.
        folders: Names of the folders of the splits "train", "val" and "test", in any case.
        classes: Names of the classes to use, by label, which then may lack validation or test images; None for all,
            sorted by name, which then need images in each folder.
        encoding: Encoding of the names in a zip archive that does not tell it; None to find it.
        image_size: Height and width in pixels that all images are resized to; one number for both.
        bit_depth: Bits that 16-bit images use, 8 to 16; larger values are white. None for as many as the
            largest value of the training images has.
        skip_unreadable: Leave out images that can't be decoded, instead of refusing them.
        storage: "memory" for decoded arrays; "stream" to decode images whenever they are needed, from a folder or a zip
            archive.
        settings: Other arguments, see `FileSettings`. Images are decoded again when a file's size or time of change
            differs.
    """

    without_val = "data.folders.val=[]"

    def __init__(
        self,
        *,
        root: str,
        folders: Mapping[str, Sequence[str]],
        classes: Sequence[str | int] | None,
        encoding: str | None,
        image_size: int | Sequence[int],
        bit_depth: int | None,
        skip_unreadable: bool,
        storage: Literal["memory", "stream"],
        **settings: Unpack[FileSettings],
    ) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser().resolve()
        self.layout = Layout(
            folders={split: tuple(names) for split, names in folders.items()},
            classes=None if classes is None else tuple(normalized(str(name)) for name in classes),
            encoding=encoding,
        )
        self.image_size = height_and_width(image_size)
        self.bit_depth = bit_depth
        self.skip_unreadable = skip_unreadable
        self.storage = storage

    @cached_property
    def _key(self) -> str:
        check_root(self.root)
        settings = self.image_size, self.resize, self.bit_depth, self.skip_unreadable, self.layout
        content = repr((str(self.root), settings, file_stamps(self.root, self.layout)))
        return f"image_folder-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @cached_property
    def _selection(self) -> ImageSelection:
        return ImageSelection(self.root, ImageListing.of(self.root, self.layout), self.skip_unreadable, self.bit_depth)

    def prepare_data(self) -> None:
        """Decode all images, or read them once for their statistics, unless the cache has them.

        Raises:
            UserError: for files and classes that can't be used, naming them.
        """
        if self.storage == "memory":
            ArrayCache(self.cache).build(self._key, lambda: self._decoding_plan(self._selection))
        else:
            key = self._key  # which checks the root
            ImageReader(self.root, self.image_size, self.resize)  # which checks the archive
            build_statistics(self.cache, key, self.image_size, self.resize, self._selection)

    def load_images(self) -> ImageArrays | StreamedImages:
        """Map the arrays in the cache into memory, or list the files that are streamed.

        Raises:
            LookupError: if `prepare_data` was not called.
        """
        if self.storage == "memory":
            return ArrayCache(self.cache).load(self._key)
        statistics = load_statistics(self.cache, self._key)
        listing = self._selection.without(statistics["skipped"]).listing
        return StreamedImages(
            name=listing.name,
            class_names=listing.class_names,
            train_labels=torch.from_numpy(listing.train.labels),
            test_labels=torch.from_numpy(listing.test.labels),
            num_val=listing.num_val,
            notes=listing.notes,
            **statistics,
            reader=ImageReader(self.root, self.image_size, self.resize, statistics["bit_depth"] or MAX_BIT_DEPTH),
            listing=listing,
        )

    def _decoding_plan(self, selection: ImageSelection) -> DecodingPlan:
        listing = selection.listing
        train, test = listing.train, listing.test

        def fill(*arrays: np.ndarray) -> DecodingPlan | None:
            arrays[1][:], arrays[3][:] = train.labels, test.labels
            report = selection.new_report()
            outputs = OutputRows((train.paths, arrays[0]), (test.paths, arrays[2]))
            decode_images(self.root, outputs, selection.used_depth, report, self.resize)
            usable = selection.after(report)
            return None if usable is selection else self._decoding_plan(usable)

        return DecodingPlan(
            name=listing.name,
            class_names=listing.class_names,
            image_shape=(3, *self.image_size),
            num_train=len(train.paths),
            num_test=len(test.paths),
            num_val=listing.num_val,
            notes=listing.notes,
            fill=fill,
            bit_depth=selection.bit_depth,
            skipped=selection.skipped,
        )


class EvaluationFolder(ImageFolder):
    """Images to evaluate a trained network on, which need only some of its classes, in `test/<class>/*` or `<class>/*`.

    Args:
        trained_classes: Classes of the network, by label.
        trained_counts: Number of training images of each class, which a loss may depend on.
        trained_fingerprint: Fingerprint of the data of the training. The same data are split as in the training; of
            others without a test folder all images are tested.
        arguments: Arguments of `ImageFolder`.
    """

    def __init__(
        self,
        *,
        trained_classes: Sequence[str],
        trained_counts: Sequence[int] | None,
        trained_fingerprint: str,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.layout = replace(self.layout, trained_classes=tuple(trained_classes))
        self.trained_counts = None if trained_counts is None else tuple(trained_counts)
        self.trained_fingerprint = trained_fingerprint

    def split_rows(self, splits: ImageArrays | StreamedImages) -> SplitRows:
        """Split as in the training; of other data without a test folder, test all images."""
        if split_fingerprint(splits) == self.trained_fingerprint:
            return super().split_rows(splits)
        num_images = len(splits.train_labels)
        rows = torch.arange(num_images)
        own, val = rows.tensor_split([num_images - splits.num_val])
        if len(splits.test_labels):
            return SplitRows(own, val, rows[:0])
        note = (
            f"all {num_images:,} images of {self.root} are test images; if the network was trained on some of them, "
            "the metrics are too good"
        )
        return SplitRows(rows[:0], val, rows, notes=(note,))

    def _count_classes(self, splits: ImageArrays | StreamedImages) -> tuple[int, ...] | None:
        return self.trained_counts
