"""What the rest of litlab needs to know about a data set. Imports neither torch nor numpy, so that it reads fast."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a prepared data set; plain values, fit for JSON."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # c h w
    mean: tuple[float, ...]  # per channel, of pixels in 0..1
    std: tuple[float, ...]  # per channel, of pixels in 0..1
    statistics_source: str  # where mean and std are from, in words
    fingerprint: str  # SHA-256 over decoded images and labels of train and test
    num_train: int  # without the validation images
    num_val: int
    num_test: int

    @property
    def num_classes(self) -> int:
        """Outputs that a network needs."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Lists, strings and numbers only: what `json.dump` writes and `from_dict` reads."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetInfo":
        """The facts that `to_dict` wrote. Raises TypeError for unknown or missing keys."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)
