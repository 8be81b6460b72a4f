"""What is to be known of the pixels of images that stay in their files: one pass over all, once, and a small JSON file.

The values are those of the same images in memory.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litlab.data.announce import announce
from litlab.data.arrays import Fingerprint, PixelCounts
from litlab.data.image_files import decode_contents
from litlab.data.image_listing import Listing, Places, Split
from litlab.data.read_image import ImageReader
from litlab.errors import UserError
from litlab.runs.files import write_json
from litlab.runs.lock import file_lock

_FORMAT = 1
_CHUNK_BYTES = 2**24  # of pixels that are held at a time
_MANY_IMAGES = 5_000  # read in seconds: worth a line, or it would look like a hang


@dataclass(frozen=True)
class StreamFacts:
    """Mean and deviation per channel of the training pixels in 0..1; SHA-256 over pixels and labels of both splits."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @classmethod
    def of(cls, reader: ImageReader, listing: Listing) -> "StreamFacts":
        """Reads every image. Raises UserError for the first that can't be decoded."""
        counts, digest = PixelCounts(3), Fingerprint()
        for split in (listing.train, listing.test):
            shape = (len(split.paths), 3, reader.image_size, reader.image_size)
            digest.begin(np.dtype(np.uint8), shape)
            for images in _decoded(reader, split):
                digest.add(images)
                if split is listing.train:
                    counts.add(images)
            digest.begin(split.labels.dtype, split.labels.shape)
            digest.add(split.labels)
        return cls(*counts.mean_and_std(), digest.hexdigest())


def _decoded(reader: ImageReader, split: Split) -> Iterator[np.ndarray]:
    """All images, some at a time, in an array that is used again."""
    shape = (3, reader.image_size, reader.image_size)
    images = np.empty((max(1, _CHUNK_BYTES // int(np.prod(shape))), *shape), dtype=np.uint8)
    for start in range(0, len(split.paths), len(images)):
        paths = split.paths[start : start + len(images)]
        contents = ((path.decode(), reader.content(path.decode())) for path in paths)
        decode_contents(reader.root, contents, Places((paths, images)))
        yield images[: len(paths)]


@dataclass(frozen=True)
class StreamCache:
    """The facts of the data sets in one folder; `key` names a data set's source and content in a file name."""

    folder: Path

    def load(self, key: str) -> StreamFacts:
        """Raises LookupError where there is no intact file."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise LookupError(f"{self._file(key)} has format {found['format']}")
            return StreamFacts(tuple(found["mean"]), tuple(found["std"]), found["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LookupError(f"{self._file(key)} is absent or damaged: {error}") from error

    def build(self, key: str, reader: ImageReader, listing: Listing) -> None:
        """Makes sure of an intact file. One process reads the images, others wait.

        Raises UserError where the folder can't be written, or an image can't be decoded.
        """
        if self._holds(key):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / f".{key}.lock", wait=True):
                if not self._holds(key):
                    write_json(self._file(key), self._read(reader, listing))
        except OSError as error:
            raise UserError(
                f"What is known of the images can't be kept in {self.folder} ({error}): "
                "set data.cache (or LITLAB_CACHE) to a folder with space that can be written"
            ) from error

    def _read(self, reader: ImageReader, listing: Listing) -> dict[str, object]:
        num_images = len(listing.train.paths) + len(listing.test.paths)
        if num_images > _MANY_IMAGES:
            announce(f"Reading {num_images:,} images of {listing.name}, once, for their mean and deviation")
        facts = StreamFacts.of(reader, listing)
        return {"format": _FORMAT, "mean": facts.mean, "std": facts.std, "fingerprint": facts.fingerprint}

    def _holds(self, key: str) -> bool:
        try:
            self.load(key)
        except LookupError:
            return False
        return True

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}-stream.json"
