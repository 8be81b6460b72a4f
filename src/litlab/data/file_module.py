"""Base class of the data modules that decode the images of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from litlab.data.arrays import ImageArrays
from litlab.data.image_stream import StreamedImages
from litlab.data.module import ImageDataModule, ImageSettings, SplitRows
from litlab.data.resize import Resize
from litlab.data.split import stratified_split


class FileSettings(ImageSettings):
    """Arguments of every `FileDataModule`; a subclass takes them as `**settings: Unpack[FileSettings]`.

    conf/data/base/files.yaml has their values.

    Attributes:
        resize: Method by which images of other proportions are resized, see `resize_boxes`; padding is black.
        cache: Folder of the decoded arrays.
        test_size: Without a test split, the number of images drawn for the test, stratified, or their fraction below 1;
            0 for no test.
        test_seed: Seed of that draw.
    """

    resize: Resize
    cache: str
    test_size: int | float
    test_seed: int


class FileDataModule(ImageDataModule):
    """Images of files, which may lack a test split: then it is drawn from the training images.

    Args:
        resize, cache, test_size, test_seed: See `FileSettings`.
        settings: Arguments of every data module, see `ImageSettings`.
    """

    def __init__(
        self,
        *,
        resize: Resize,
        cache: str,
        test_size: int | float,
        test_seed: int,
        **settings: Unpack[ImageSettings],
    ) -> None:
        super().__init__(**settings)
        self.resize: Resize = resize
        self.cache = Path(cache).expanduser()
        self.test_size = test_size
        self.test_seed = test_seed

    @property
    def cache_folder(self) -> Path:
        """Folder of the decoded arrays."""
        return self.cache

    def split_rows(self, splits: ImageArrays | StreamedImages) -> SplitRows:
        """Draw the test images, if there is no test split, before the validation images."""
        if len(splits.test_labels):
            return super().split_rows(splits)
        num_own = len(splits.train_labels) - splits.num_val  # without the images of a validation split
        rest, test = stratified_split(
            splits.train_labels[:num_own],
            class_names=splits.class_names,
            size=self.test_size,
            seed=self.test_seed,
            setting="data.test_size",
        )
        rows = self._split_validation(splits, rest)
        setting = f"data.test_size={self.test_size}"
        drawn = f"{setting} draws {len(test):,} of its images" if len(test) else f"no test, as {setting}"
        return rows._replace(test=test, notes=(f"{splits.name} has no test split: {drawn}", *rows.notes))


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width in pixels, given as two numbers or as one for both."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width
