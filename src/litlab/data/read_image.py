"""Images read from a folder or a zip archive one by one, in any order, for as long as nobody changes the files."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from litlab.data.archive import ZipReader
from litlab.data.decode_image import decode_image
from litlab.data.image_files import read_file
from litlab.errors import UserError


class ImageReader:
    """Reads and decodes images by the path they are stored under; to the same pixels as `decode_images`.

    Each process needs its own, as soon as it has read: what is open can't be shared.
    Raises UserError for a compressed or plain tar archive, which can only be read from front to back.
    """

    def __init__(self, root: Path, image_size: int) -> None:
        self.root = root
        self.image_size = image_size
        self._archive: ZipReader | None = None
        if not root.is_dir() and root.suffix.lower() != ".zip":
            raise UserError(
                f"data.storage=stream: {root} can only be read from front to back, not image by image: "
                "unpack it and set data.root to the folder, pack it as a zip archive, or set data.storage=memory"
            )

    def content(self, stored: str) -> bytes:
        """What a file holds. Raises UserError where it is gone."""
        if self.root.is_dir():
            return read_file(self.root / stored)
        if self._archive is None:
            self._archive = ZipReader(self.root)
        return self._archive.read(stored)

    def pixels(self, stored: str) -> UInt8[np.ndarray, "3 h w"]:
        """Raises UserError, naming the file, where it is gone, or no image any more."""
        where = str(self.root / stored) if self.root.is_dir() else f"{stored} in {self.root}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and of large images; too large ones are refused
            return decode_image(self.content(stored), (self.image_size, self.image_size), where)
