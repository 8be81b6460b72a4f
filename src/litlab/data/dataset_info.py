"""Description of a prepared data set; imports neither torch nor NumPy, so that it loads fast."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a prepared data set in plain values, as stored in dataset.json.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, by label.
        image_shape: Channels, height, width.
        mean: Mean per channel, of pixels in 0..1.
        std: Standard deviation per channel, of pixels in 0..1.
        statistics_source: Origin of `mean` and `std`, in a sentence.
        fingerprint: SHA-256 over decoded images and labels of train and test.
        num_train: Number of training images, without the validation images.
        num_val: Number of validation images.
        num_test: Number of test images.
        notes: Sentences for the user on what is not used, and on how splits were made.
        bit_depth: Bits that 16-bit images were scaled from; None if there are none.
        skipped: Paths of the images that could not be decoded and are left out.
        resize: Method by which images of other proportions are resized, see `litlab.data.resize`.
        transformed_from: Channels, height, width before the transforms of evaluation (`data.transforms.eval`), which
            give `image_shape`; None if there are none.
        class_counts: Number of training images of each class, by label, without the validation images; None if unknown.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics_source: str
    fingerprint: str
    num_train: int
    num_val: int
    num_test: int
    notes: tuple[str, ...] = ()
    bit_depth: int | None = None
    skipped: tuple[str, ...] = ()
    resize: Literal["squash", "crop", "pad"] = "squash"
    transformed_from: tuple[int, int, int] | None = None
    class_counts: tuple[int, ...] | None = None

    @property
    def num_classes(self) -> int:
        """Number of outputs that a network needs."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Convert to lists, strings and numbers, which `from_dict` reads back from JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: object) -> "DatasetInfo":
        """Read the output of `to_dict`, which may be a stranger's: its values become arguments of what is built.

        Raises:
            pydantic.ValidationError: for unknown or missing keys, and for values of other types.
        """
        return TypeAdapter(cls).validate_json(json.dumps(values))  # which turns lists into tuples
