"""Low light: images as a camera would have taken them with fewer photons, by a physical model.

An image is converted from sRGB to linear light (IEC 61966-2-1) and exposed by some stops less. The electrons of each
pixel and channel are drawn from a Poisson distribution, to which the camera adds normal read noise. What it measures is
clipped to black and white and converted back to sRGB, with 8 bits. It is not brightened.

The result is a function of (seed, split, row) alone. Random numbers are hashes of these, which distribution functions
in tables map to electrons.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from litlab.data.arrays import (
    MANY_IMAGES,
    ArrayCache,
    DecodingPlan,
    ImageArrays,
    announce,
    build_once,
    image_statistics,
)
from litlab.data.image_stream import StreamedImages, load_statistics, save_statistics
from litlab.data.random_numbers import Stream, random_bits, random_sequences, uniform
from litlab.data.transforms import one_thread

CACHE_PREFIX = "low_light-"
_FORMAT = 1  # of the model: part of the key of what is in the cache
_SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")  # numbered in the key of the random numbers
_CHUNK_PIXELS = 2**15  # computed at a time: they stay in the processor's cache
_CELLS = 4096  # of linear light from 0 to 1, each narrower than the light of any of the 256 levels
_RADIX = 256  # of the digits of a rate
_MASK = 2**31 - 1


def srgb_to_linear(value: float) -> float:
    """Convert a value of sRGB, from 0 to 1, to linear light, from 0 to 1, as IEC 61966-2-1 defines it."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


_LIGHT = np.array([srgb_to_linear(level / 255) for level in range(256)])  # of each level
# Least light that is rounded to the next level, for each level; none for white.
_NEXT = np.array([srgb_to_linear((level + 0.5) / 255) for level in range(255)] + [np.inf])
_LEVEL = np.searchsorted(_NEXT, np.arange(_CELLS) / _CELLS, side="right")  # of the least light of each cell


def to_levels(light: Float64[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """Convert linear light to levels of sRGB, rounded to the nearest and clipped to 0..255."""
    level = _LEVEL[(light * _CELLS).clip(0, _CELLS - 1).astype(np.int64)]
    return (level + (light >= _NEXT[level])).astype(np.uint8)


@dataclass(frozen=True)
class LowLight:
    """Model of a camera in low light.

    Attributes:
        stops: Least and largest number of stops, of which each image gets a uniformly drawn one; a stop is half of the
            light.
        photons: Photons, each an electron, of a white pixel without stops.
        read_noise: Standard deviation of the read noise in electrons. It takes 65,536 equally likely values, whose
            distribution function differs from that of normal noise by less than 1e-5.
        seed: Seed of stops and noise. Not that of a run: runs with other seeds get the same images, as in any data set.
    """

    stops: tuple[float, float]
    photons: float
    read_noise: float
    seed: int = 0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "LowLight":
        """Return the model of `data.low_light`."""
        stops = settings["stops"]
        least, most = (stops, stops) if isinstance(stops, int | float) else stops
        return cls(
            stops=(float(least), float(most)),
            photons=float(settings["photons"]),
            read_noise=float(settings["read_noise"]),
            seed=settings.get("seed", 0),
        )

    def __str__(self) -> str:
        """Return the settings in words."""
        stops = " to ".join(f"{number:g}" for number in dict.fromkeys(self.stops))
        return (
            f"darkened by {stops} stops, with {self.photons:,g} photons at white before and read noise of "
            f"{self.read_noise:g} (data.low_light)"
        )

    def image_stops(self, split: Literal["train", "test"], rows: Int64[Tensor, " n"]) -> list[float]:
        """Return the number of stops of each image, by its row in the official split."""
        low, high = self.stops
        numbers = uniform(random_bits(rows, self.seed, _SPLITS.index(split), Stream.LOW_LIGHT_STOPS))
        return [low + (high - low) * number for number in numbers.tolist()]

    def expected_electrons(self, stops: list[float]) -> Float64[np.ndarray, "n 256"]:
        """Return the mean number of electrons of a pixel, for each number of stops and level."""
        electrons: np.ndarray = np.array([self.photons * 2.0**-number for number in stops])[:, None] * _LIGHT
        return electrons

    def darken(
        self,
        images: UInt8[np.ndarray, "n c h w"],
        split: Literal["train", "test"],
        rows: Int64[Tensor, " n"],
        out: UInt8[np.ndarray, "n c h w"] | None = None,
    ) -> UInt8[np.ndarray, "n c h w"]:
        """Darken images with these rows in the official split, and return them, or `out` with them."""
        result = np.empty_like(images) if out is None else out
        step = max(1, _CHUNK_PIXELS // max(1, images[:1].size))
        with one_thread():
            for start in range(0, len(images), step):
                part = slice(start, start + step)
                result[part] = self._darken_chunk(images[part], split, rows[part])
        return result

    def _darken_chunk(
        self, images: UInt8[np.ndarray, "n c h w"], split: Literal["train", "test"], rows: Int64[Tensor, " n"]
    ) -> UInt8[np.ndarray, "n c h w"]:
        num_pixels = images[0].size
        starts = random_bits(rows, self.seed, _SPLITS.index(split), Stream.LOW_LIGHT_NOISE)
        bits = random_sequences(starts, 2 * num_pixels).numpy()
        rates = self.expected_electrons(self.image_stops(split, rows))
        offsets = np.arange(0, rates.size, 256)[:, None]  # of the levels of each image
        electrons = draw_poisson(
            rates.ravel(),
            (images.reshape(len(images), -1) + offsets).ravel(),
            bits[:, :num_pixels].ravel(),
            bits[:, num_pixels:].ravel(),
        ).reshape(len(images), -1)
        noise = _standard_normal()[bits[:, num_pixels:] & (2**16 - 1)]
        return to_levels((electrons + self.read_noise * noise) / self.photons).reshape(images.shape)


def draw_poisson(
    rates: Float64[np.ndarray, " m"],
    indices: Int64[np.ndarray, " n"],
    bits: Int64[np.ndarray, " n"],
    more_bits: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Draw numbers of a Poisson distribution by the inversion of distribution functions, to 2**-31.

    A sum of Poisson numbers is one of the sum of their rates. So a rate is split into its fraction and two digits of
    its whole part, which tables for 256 rates each serve.

    Args:
        rates: Rates that occur, below 65,536.
        indices: Index in `rates` for each number.
        bits: Random bits for each number.
        more_bits: The same, of which the lower 16 are not used.
    """
    whole = np.floor(rates).astype(np.int64)
    numbers = _draw_below_one(rates - whole, indices, bits & _MASK)
    numbers += _poisson_table(1, _RADIX).draw((whole % _RADIX)[indices], bits >> 33 & _MASK)
    if (largest := int(whole.max()) // _RADIX) > 0:
        digits = (whole // _RADIX)[indices]
        large = np.flatnonzero(digits)
        numbers[large] += _poisson_table(_RADIX, largest + 1).draw(digits[large], more_bits[large] >> 33 & _MASK)
    return numbers


def _draw_below_one(
    rates: Float64[np.ndarray, " m"], indices: Int64[np.ndarray, " n"], random: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Draw Poisson numbers of rates below 1 by sequential search; `random` has 31 random bits."""
    numbers = np.zeros(len(indices), dtype=np.int64)
    probability, number = np.exp(-rates), 0
    total = probability.copy()  # probability of `number` and less
    left = np.flatnonzero(random >= (total * 2.0**31 - 0.5)[indices])
    while len(left):
        number += 1
        numbers[left] = number
        probability *= rates / number
        total += probability
        left = left[random[left] >= (total * 2.0**31 - 0.5)[indices[left]]]
    return numbers


class PoissonTable:
    """Inverse Poisson distribution functions of several rates, with guide tables (Chen and Asau 1974).

    Args:
        rates: The rates.
    """

    _GUIDE_BITS = 10

    def __init__(self, rates: Float64[np.ndarray, " m"]) -> None:
        margin = 7 * np.sqrt(rates) + 16  # numbers further from the rate have a probability below 2**-31
        first = np.floor((rates - margin).clip(0)).astype(np.int64)
        numbers = first[:, None] + np.arange(int(2 * margin.max()) + 2)
        functions = torch.special.gammaincc(torch.from_numpy(numbers + 1.0), torch.from_numpy(rates)[:, None])
        thresholds = np.rint(functions.numpy() * 2.0**31).astype(np.int64)
        thresholds[:, -1] = 2**31
        guides = np.arange(2**self._GUIDE_BITS) << (31 - self._GUIDE_BITS)
        guide = first[:, None] + np.stack([np.searchsorted(row, guides, side="right") for row in thresholds])
        self._guide = guide.astype(np.int32).ravel()  # least number for the upper bits
        self._offsets = np.arange(len(rates)) * numbers.shape[1] - first  # of the number 0 in the thresholds
        self._thresholds = thresholds.astype(np.uint32).ravel()

    def draw(self, rows: Int64[np.ndarray, " n"], random: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Map 31 random bits to numbers of the rates in these rows."""
        guide = (rows << self._GUIDE_BITS) + (random >> (31 - self._GUIDE_BITS))
        numbers: np.ndarray = self._guide[guide].astype(np.int64)
        late = np.flatnonzero(random >= self._thresholds[self._offsets[rows] + numbers])
        while len(late):
            numbers[late] += 1
            late = late[random[late] >= self._thresholds[self._offsets[rows[late]] + numbers[late]]]
        return numbers


@cache
def _poisson_table(unit: int, num_rates: int) -> PoissonTable:
    """Return the table of the rates 0, unit, 2 unit and so on."""
    return PoissonTable(np.arange(num_rates) * float(unit))


@cache
def _standard_normal() -> Float64[np.ndarray, "65536"]:
    """Return 65,536 equally likely values of standard normal noise."""
    quantiles: np.ndarray = torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).numpy()
    return quantiles


def darken_splits(
    splits: ImageArrays | StreamedImages, low_light: LowLight, cache_folder: Path | None
) -> ImageArrays | StreamedImages:
    """Darken all images of a data set, or have them darkened when they are read from a stream.

    Args:
        splits: The data set.
        low_light: The model.
        cache_folder: Folder that keeps the images, or the statistics of a stream; None to compute them anew.

    Raises:
        UserError: if the folder can't be written, or an image of a stream can't be decoded.
    """
    content = repr((_FORMAT, astuple(low_light), splits.fingerprint))
    key = f"{CACHE_PREFIX}{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    notes = (*splits.notes, str(low_light))
    if isinstance(splits, StreamedImages):
        values = {field.name: getattr(splits, field.name) for field in fields(splits)}
        stream = DarkStream(**values | {"notes": notes}, low_light=low_light)
        return replace(stream, **_stream_statistics(stream, cache_folder, key))
    dark = _dark_arrays(splits, low_light, cache_folder, key)
    names = ("train_images", "test_images", "train_sums", "fingerprint")  # the key tells nothing of classes and notes
    return replace(splits, notes=notes, **{name: getattr(dark, name) for name in names})


def _dark_arrays(splits: ImageArrays, low_light: LowLight, cache_folder: Path | None, key: str) -> ImageArrays:
    """Return darkened images, from the cache if there is one."""

    def fill(train_images: np.ndarray, train_labels: np.ndarray, *test: np.ndarray) -> None:
        (test_images, test_labels) = test
        train_labels[:], test_labels[:] = splits.train_labels, splits.test_labels
        low_light.darken(splits.train_images.numpy(), "train", torch.arange(len(train_images)), out=train_images)
        low_light.darken(splits.test_images.numpy(), "test", torch.arange(len(test_images)), out=test_images)

    if cache_folder is None:
        sources = (splits.train_images, splits.train_labels, splits.test_images, splits.test_labels)
        tensors = [torch.empty_like(source) for source in sources]
        fill(*(tensor.numpy() for tensor in tensors))
        return ImageArrays.from_tensors(
            name=splits.name,
            class_names=splits.class_names,
            train_images=tensors[0],
            train_labels=tensors[1],
            test_images=tensors[2],
            test_labels=tensors[3],
        )
    plan = DecodingPlan(
        name=splits.name,
        class_names=splits.class_names,
        image_shape=splits.image_shape,
        num_train=len(splits.train_labels),
        num_test=len(splits.test_labels),
        fill=fill,
        action="Darkening",
    )
    images = ArrayCache(cache_folder)
    images.build(key, lambda: plan)
    return images.load(key)


@dataclass(frozen=True, kw_only=True)
class DarkStream(StreamedImages):
    """Images that are darkened when they are read.

    Attributes:
        low_light: The model.
    """

    low_light: LowLight

    def read(self, split: Literal["train", "test"]) -> Callable[[int], UInt8[Tensor, "3 h w"]]:
        """Return a function that decodes and darkens the image of a row of a split."""
        read = super().read(split)

        def read_dark(row: int) -> Tensor:
            return torch.from_numpy(self.low_light.darken(read(row)[None].numpy(), split, torch.tensor([row]))[0])

        return read_dark

    def chunks(self, split: Literal["train", "test"]) -> Iterator[UInt8[np.ndarray, "n 3 h w"]]:
        """Yield all images of a split in chunks."""
        row = 0
        for images in super().chunks(split):
            yield self.low_light.darken(images, split, torch.arange(row, row + len(images)))
            row += len(images)


def _stream_statistics(stream: DarkStream, cache_folder: Path | None, key: str) -> dict[str, Any]:
    """Return sums and fingerprint of darkened images, which take a pass over all files unless they are in the cache."""
    folder = cache_folder
    if folder is None:
        return _compute_statistics(stream)

    def write() -> None:
        if (num_images := len(stream.train_labels) + len(stream.test_labels)) > MANY_IMAGES:
            announce(f"Reading {num_images:,} images of {stream.name} in low light, once, for their mean and deviation")
        save_statistics(folder, key, _compute_statistics(stream))

    build_once(folder, key, lambda: load_statistics(folder, key), write)
    return load_statistics(folder, key)


def _compute_statistics(stream: DarkStream) -> dict[str, Any]:
    arrays: list[tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]] = []
    for split in _SPLITS:
        labels = (stream.train_labels if split == "train" else stream.test_labels).numpy()
        arrays.append((np.dtype(np.uint8), (len(labels), *stream.image_shape), stream.chunks(split)))
        arrays.append((labels.dtype, labels.shape, [labels]))
    return image_statistics(*arrays) | {"bit_depth": stream.bit_depth, "skipped": stream.skipped}
