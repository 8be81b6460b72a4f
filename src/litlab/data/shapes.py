"""Synthetic data set of ten classes of shapes, drawn without a download.

Image i is a function of (seed, split, i) alone, to the bit: random numbers are hashes of these, and all arithmetic on
pixels is of the kind that is exactly rounded (no sines or powers, which differ between vector and scalar code).
"""

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from litlab.data.arrays import ImageArrays
from litlab.data.module import ImageDataModule, ImageSettings
from litlab.data.random_numbers import random_bits, random_sequences
from litlab.data.transforms import one_thread

CLASS_NAMES = ("disk", "ring", "square", "triangle", "cross", "star", "crescent", "half-disk", "bars", "corner")
IMAGE_SIZE = 32

_TRAIN, _TEST = 0, 1  # keys of the random numbers
_CHUNK = 10 * len(CLASS_NAMES)  # images drawn at a time: they stay in the processor's cache
_LARGEST_TURN = 16  # of a shape, to either side, in 256ths of a turn
_MIN_RADIUS, _MAX_RADIUS = 0.6, 0.85  # of a shape; the image's half width is 1
_NOISE = 0.11  # largest deviation of a pixel, in 0..1
_TURNS = torch.tensor([[math.cos(math.tau * k / 256), math.sin(math.tau * k / 256)] for k in range(256)])
_RIGHT = ((torch.arange(IMAGE_SIZE) + 0.5) * (2 / IMAGE_SIZE) - 1)[None, :]  # of the centers of the pixels
_DOWN = _RIGHT.T


class Shapes(ImageDataModule):
    """Images of 3x32x32, drawn in `setup` (12,000 in 1.3 s on one core).

    Args:
        num_train: Number of training images; larger sets begin with the smaller ones. Classes alternate, so they are
            equally frequent.
        num_test: Number of test images.
        data_seed: Seed of the images; independent of `seed`.
        settings: Arguments of every data module, see `ImageSettings`.
    """

    def __init__(self, *, num_train: int, num_test: int, data_seed: int, **settings: Unpack[ImageSettings]) -> None:
        super().__init__(**settings)
        self.num_train = num_train
        self.num_test = num_test
        self.data_seed = data_seed

    def load_images(self) -> ImageArrays:
        """Draw both splits."""
        train_images = draw_images(self.num_train, self.data_seed, _TRAIN)
        test_images = draw_images(self.num_test, self.data_seed, _TEST)
        train_labels, test_labels = (torch.arange(num) % len(CLASS_NAMES) for num in (self.num_train, self.num_test))
        return ImageArrays.from_tensors(
            name="shapes",
            class_names=CLASS_NAMES,
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
        )


def draw_images(num_images: int, seed: int, split: int) -> UInt8[Tensor, "n 3 32 32"]:
    """Draw the first images of a split; image i shows class i modulo 10."""
    images = torch.empty(num_images, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with one_thread():
        for start in range(0, num_images, _CHUNK):
            chunk = _draw_chunk(torch.arange(start, start + _CHUNK), seed, split)
            images[start : start + _CHUNK] = chunk[: num_images - start]
    return images


@dataclass
class _Generator:
    """Uniform random numbers for a chunk of images; each draw has a key of its own."""

    indices: Int64[Tensor, " n"]
    key: tuple[int, ...]
    num_draws: int = 0

    def uniform(self, low: float, high: float, count: int = 1) -> Float[Tensor, "n count 1 1"]:
        columns = [self._draw() for _ in range(count)]
        return low + (high - low) * torch.stack(columns, dim=1)[..., None, None]

    def direction(self, largest_turn: int = 128) -> tuple[Tensor, Tensor]:
        """Draw cosine and sine, each n 1 1 1, of an angle of up to so many 256ths of a turn to either side."""
        turn = _TURNS[((2 * self._draw() - 1) * largest_turn).long() % 256]
        return turn[:, 0, None, None, None], turn[:, 1, None, None, None]

    def _draw(self) -> Tensor:
        self.num_draws += 1
        bits = random_bits(self.indices, *self.key, self.num_draws)
        return ((bits >> 40) & (2**24 - 1)).float() / 2**24


def _draw_chunk(indices: Int64[Tensor, " n"], seed: int, split: int) -> UInt8[Tensor, "n 3 32 32"]:
    generator = _Generator(indices, (seed, split))
    background = generator.uniform(0.0, 1.0, 3)
    foreground = background + generator.uniform(0.3, 0.7, 3)  # differs from it by that much in each channel
    foreground = torch.where(foreground > 1, foreground - 1, foreground)
    canvas = _textured(background, generator)
    canvas = _paint(canvas, generator.uniform(0.0, 1.0, 3), _clutter(generator))
    canvas = _paint(canvas, _textured(foreground, generator), _shape_cover(generator))
    return ((canvas + _noise(indices, seed, split) * _NOISE) * 255).round_().clamp_(0, 255).to(torch.uint8)


def _textured(color: Tensor, generator: _Generator) -> Tensor:
    """Draw soft stripes of random direction, width and strength in a color, shape n 3 h w."""
    cosine, sine = generator.direction()
    across = (_RIGHT * cosine + _DOWN * sine) * generator.uniform(0.5, 2.5) + generator.uniform(4.0, 5.0)
    wave = (across - across.floor() - 0.5).abs() * 4 - 1
    return color + wave * generator.uniform(-0.2, 0.2, 3)


def _paint(canvas: Tensor, color: Tensor, cover: Tensor) -> Tensor:
    return canvas + (color - canvas) * cover


def _placed(generator: _Generator, radius: Tensor, largest_turn: int) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates in the frame of an object of this radius, placed at random in the image."""
    cosine, sine = generator.direction(largest_turn)
    reach = 0.95 - radius
    x = _RIGHT - generator.uniform(-1.0, 1.0) * reach
    y = _DOWN - generator.uniform(-1.0, 1.0) * reach
    return (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius


def _cover(distance: Tensor, radius: Tensor) -> Tensor:
    """Return the fraction of each pixel inside, from a signed distance in units of the radius (negative inside)."""
    return (0.5 - distance * radius * (IMAGE_SIZE / 2)).clamp_(0, 1)


def _clutter(generator: _Generator) -> Tensor:
    """Return the cover of a rectangle at a random place, smaller than a shape and of random proportions."""
    radius = generator.uniform(0.1, 0.4)
    x, y = _placed(generator, radius, 128)
    return _cover(torch.maximum(x.abs() - 1, y.abs() - generator.uniform(0.2, 1.0)), radius)


def _shape_cover(generator: _Generator) -> Tensor:
    radius = generator.uniform(_MIN_RADIUS, _MAX_RADIUS)
    x, y = _placed(generator, radius, _LARGEST_TURN)
    num_classes, distance = len(CLASS_NAMES), torch.empty_like(x)
    for label, name in enumerate(CLASS_NAMES):  # chunks begin with class 0, and classes alternate
        distance[label::num_classes] = _distance(name, x[label::num_classes], y[label::num_classes])
    return _cover(distance, radius)


def _distance(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the approximate signed distance to the shape of a class in a frame of radius 1; its zero is exact."""
    radius = (x * x + y * y).sqrt()
    square = torch.maximum(x.abs(), y.abs()) - 0.85
    match name:
        case "disk":
            return radius - 0.95
        case "ring":
            return (radius - 0.72).abs() - 0.26
        case "square":
            return square
        case "triangle":
            return _half_planes(x, y, 3).amax(0) - 0.55
        case "cross":
            return torch.maximum(torch.maximum(x.abs(), y.abs()) - 1, torch.minimum(x.abs(), y.abs()) - 0.3)
        case "star":
            # inside a pentagram: inside all but at most one of its five sides
            return _half_planes(x, y, 5).topk(2, dim=0).values[1] - 0.36
        case "crescent":
            return torch.maximum(radius - 1, 0.75 - ((x - 0.5) * (x - 0.5) + y * y).sqrt())
        case "half-disk":
            return torch.maximum(((x + 0.4) * (x + 0.4) + y * y).sqrt() - 1, -0.4 - x)
        case "bars":
            return torch.maximum(x.abs() - 0.95, (y.abs() - 0.55).abs() - 0.27)
        case _:
            return torch.maximum(square, torch.minimum(x, y) + 0.2)


def _half_planes(x: Tensor, y: Tensor, num_sides: int) -> Tensor:
    """Return the distance from lines through the center parallel to a polygon's sides, shape sides n 1 h w."""
    angles = [math.tau * k / num_sides for k in range(num_sides)]
    return torch.stack([x * math.cos(angle) + y * math.sin(angle) for angle in angles])


def _noise(indices: Tensor, seed: int, split: int) -> Tensor:
    """Draw noise, uniform in -1..1 and independent for every pixel and channel, shape n 3 h w."""
    bits = random_sequences(random_bits(indices, seed, split, 0), IMAGE_SIZE * IMAGE_SIZE // 2)  # a hash for 2 pixels
    levels = torch.stack([(bits >> low) & 255 for low in range(0, 48, 8)], dim=1).float()
    return levels.div_(127.5).sub_(1).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
