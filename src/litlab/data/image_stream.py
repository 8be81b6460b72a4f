"""Streamed images: they stay in their files, from which each is read and decoded whenever it is needed."""

import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from litlab.data.archive import ZipReader
from litlab.data.arrays import MANY_IMAGES, ImageSplits, announce, build_once, image_statistics
from litlab.data.image_decoder import (
    MAX_BIT_DEPTH,
    DecodingReport,
    decode_contents,
    decode_image,
    image_source,
    read_file,
)
from litlab.data.image_listing import ImageListing, OutputRows, Split
from litlab.data.image_selection import ImageSelection
from litlab.data.resize import Resize
from litlab.errors import UserError
from litlab.runs.files import write_atomic

_FORMAT = 2
_CHUNK_BYTES = 2**24  # of pixels that are in memory at a time


class ImageReader:
    """Random access to the images of a folder or zip archive, decoded to the same pixels as by `decode_images`.

    Each process needs its own once it has read an image, since an open file can't be shared.

    Args:
        root: The folder or archive.
        image_size: Height and width that images are resized to.
        resize: See `resize_boxes`.
        bit_depth: Bits that 16-bit images use.

    Raises:
        UserError: for a tar archive, which can only be read from front to back.
    """

    def __init__(self, root: Path, image_size: tuple[int, int], resize: Resize, bit_depth: int = MAX_BIT_DEPTH) -> None:
        self.root = root
        self.image_size = image_size
        self.resize: Resize = resize
        self.bit_depth = bit_depth
        self._archive: ZipReader | None = None
        if not root.is_dir() and root.suffix.lower() != ".zip":
            raise UserError(
                f"data.storage=stream: {root} can only be read from front to back, not image by image: "
                "unpack it and set data.root to the folder, pack it as a zip archive, or set data.storage=memory"
            )

    def content(self, path: str) -> bytes:
        """Read a file; raise a UserError if it no longer exists."""
        if self.root.is_dir():
            return read_file(self.root / path)
        if self._archive is None:
            self._archive = ZipReader(self.root)
        return self._archive.read(path)

    def pixels(self, path: str) -> UInt8[np.ndarray, "3 h w"]:
        """Read and decode an image.

        Raises:
            UserError: if the file no longer exists or is not an image, naming it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and large images; too large ones are refused
            source = image_source(self.root, path)
            return decode_image(self.content(path), self.image_size, source, self.bit_depth, self.resize)


def build_statistics(
    folder: Path, key: str, image_size: tuple[int, int], resize: Resize, selection: ImageSelection
) -> None:
    """Make sure that the cache in `folder` has the statistics of streamed images, which takes one pass over them.

    After a pass that finds images to leave out, or to scale, there is another one.

    Raises:
        UserError: if the folder can't be written, or an image can't be decoded.
    """

    def write() -> None:
        listing = selection.listing
        num_images = len(listing.train.paths) + len(listing.test.paths)
        if num_images > MANY_IMAGES:
            announce(f"Reading {num_images:,} images of {listing.name}, once, for their mean and deviation")
        save_statistics(folder, key, _image_statistics(image_size, resize, selection))

    build_once(folder, key, lambda: load_statistics(folder, key), write)


def save_statistics(folder: Path, key: str, statistics: dict[str, Any]) -> None:
    """Write what `load_statistics` reads."""
    skipped, bit_depth = np.array(statistics["skipped"], dtype=str), statistics["bit_depth"] or 0
    content = statistics | {"format": _FORMAT, "skipped": skipped, "bit_depth": bit_depth}
    write_atomic(folder / f"{key}-stream.npz", lambda file: np.savez(file, **content))


def load_statistics(folder: Path, key: str) -> dict[str, Any]:
    """Read the fields `train_sums`, `fingerprint`, `bit_depth` and `skipped` of `ImageSplits` from a cache.

    Raises:
        LookupError: if it has no intact file of them.
    """
    file = folder / f"{key}-stream.npz"
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as values:
            if values["format"] != _FORMAT:
                raise LookupError(f"{file} has format {values['format']}")
            return {
                "train_sums": torch.from_numpy(values["train_sums"]),
                "fingerprint": str(values["fingerprint"]),
                "bit_depth": int(values["bit_depth"]) or None,
                "skipped": tuple(values["skipped"].tolist()),
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LookupError(f"{file} is absent or damaged: {error}") from error


def _image_statistics(image_size: tuple[int, int], resize: Resize, selection: ImageSelection) -> dict[str, Any]:
    """Compute what `load_statistics` returns."""
    reader = ImageReader(selection.root, image_size, resize, selection.used_depth)
    report = selection.new_report()
    arrays: list[tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]] = []
    for split in (selection.listing.train, selection.listing.test):
        shape = (len(split.paths), 3, *image_size)
        arrays.append((np.dtype(np.uint8), shape, _decode_in_chunks(reader, split, report)))
        arrays.append((split.labels.dtype, split.labels.shape, [split.labels]))
    statistics = image_statistics(*arrays)
    usable = selection.after(report)
    if usable is not selection:
        return _image_statistics(image_size, resize, usable)
    return statistics | {"bit_depth": selection.bit_depth, "skipped": selection.skipped}


def _decode_in_chunks(
    reader: ImageReader, split: Split, report: DecodingReport
) -> Iterator[UInt8[np.ndarray, "n 3 h w"]]:
    """Yield all images in chunks, in an array that is used again."""
    shape = (3, *reader.image_size)
    images = np.empty((max(1, _CHUNK_BYTES // int(np.prod(shape))), *shape), dtype=np.uint8)
    for start in range(0, len(split.paths), len(images)):
        paths = split.paths[start : start + len(images)]
        contents = ((path.decode(), reader.content(path.decode())) for path in paths)
        decode_contents(contents, OutputRows((paths, images)), reader.bit_depth, report, reader.resize)
        yield images[: len(paths)]


@dataclass(frozen=True, kw_only=True)
class StreamedImages(ImageSplits):
    """Both official splits in their files.

    Attributes:
        reader: Reads the images.
        listing: Paths of the images.
    """

    reader: ImageReader
    listing: ImageListing

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, *self.reader.image_size

    def read(self, split: Literal["train", "test"]) -> Callable[[int], UInt8[Tensor, "3 h w"]]:
        """Return a function that decodes the image of a row of a split."""
        paths = (self.listing.train if split == "train" else self.listing.test).paths
        return lambda row: torch.from_numpy(np.array(self.reader.pixels(paths[row].decode())))

    def chunks(self, split: Literal["train", "test"]) -> Iterator[UInt8[np.ndarray, "n 3 h w"]]:
        """Decode all images of a split in chunks, in an array that is used again.

        Raises:
            UserError: if an image can't be decoded, naming it.
        """
        report = DecodingReport()
        for images in _decode_in_chunks(self.reader, getattr(self.listing, split), report):
            for path, reason in report.unreadable.items():
                raise UserError(f"{image_source(self.reader.root, path)} {reason}: replace or remove it")
            yield images
