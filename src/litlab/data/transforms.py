"""Transforms of single images, such as those of torchvision: random numbers are a function of (seed, epoch, index)."""

import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from litlab.data.random_numbers import Stream, random_bits
from litlab.errors import UserError

Transform = Callable[[Any], Any]
EVALUATION_EPOCH = -1  # of the random numbers of evaluation transforms, which no epoch changes
_LEFT_OUT = ("ToTensor", "Normalize")  # of torchvision
_NUM_TRIALS = 4  # of each image in a check; a transform that is random in one half of all cases is random in one


class ImageTransforms:
    """Transforms that are applied to each image in turn, with random numbers of its own.

    Before each image, the global generators of torch, NumPy and Python are seeded by a hash of (seed, epoch, index of
    the image); afterwards they are what they were. So results are the same for any number of ranks and workers, and
    after a resume.

    Args:
        transforms: Called one after the other. The first gets a uint8 tensor `c h w`, the last has to return one.
        seed: Seed of the random numbers.
        setting: Key of the transforms in the config, for messages.

    Raises:
        UserError: if one of them can't be called.
    """

    def __init__(self, transforms: Sequence[Any], *, seed: int, setting: str) -> None:
        self.transforms: tuple[Transform, ...] = tuple(transforms)
        self.seed = seed
        self.setting = setting
        for number, transform in enumerate(self.transforms):
            if not callable(transform):
                raise UserError(
                    f"{setting}.{number}: a {type(transform).__name__} can't be applied to images; expected a class "
                    "whose objects are called with an image, or a function with `_partial_: true`"
                )

    def __bool__(self) -> bool:
        """Return True if there are any transforms."""
        return bool(self.transforms)

    def __call__(
        self, images: Sequence[UInt8[Tensor, "_ _ _"]], indices: Sequence[int], epoch: int
    ) -> list[UInt8[Tensor, "_ _ _"]]:
        """Transform images, each `c h w`, with these indices.

        Raises:
            UserError: if a transform fails, or if what the last one returns is no uint8 image.
        """
        bits = random_bits(torch.tensor(indices, dtype=torch.int64), self.seed, epoch, Stream.TRANSFORM).tolist()
        with one_thread(), _generators_restored(), torch.no_grad():
            return [
                self._transform(image, index, seed) for image, index, seed in zip(images, indices, bits, strict=True)
            ]

    def __str__(self) -> str:
        """Return the transforms in words, in their order."""
        return ", ".join(
            " ".join(repr(transform).split()) if isinstance(transform, nn.Module) else _name(transform)
            for transform in self.transforms
        )

    def output_shape(self, images: Sequence[UInt8[Tensor, "_ _ _"]], indices: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape, c h w, of all images after the transforms, found by some of them.

        Raises:
            UserError: if the shapes differ, or if one image gives several results for the same random numbers.
        """
        for epoch in range(_NUM_TRIALS):
            results = self(images, indices, epoch)
            shape = self.check_shapes(results, indices)
            for first, again in zip(results, self(images, indices, epoch), strict=True):
                if not torch.equal(first, again):
                    raise UserError(
                        f"{self.setting}: one image gave two results for the same seed, so no run could be repeated; "
                        "a transform must keep no state, and draw its random numbers from the functions of torch, "
                        "numpy.random or random themselves, not from a generator of its own"
                    )
        return shape

    def check_shapes(
        self, images: Sequence[Tensor], indices: Sequence[int], expected: tuple[int, int, int] | None = None
    ) -> tuple[int, int, int]:
        """Return the one shape of transformed images, c h w; raise a UserError if there are several."""
        expected = expected or _shape(images[0])
        for image, index in zip(images, indices, strict=True):
            if _shape(image) != expected:
                raise UserError(
                    f"{self.setting}: image {index} has the shape {_text(_shape(image))} after them, another one "
                    f"{_text(expected)}, but the images of a batch need one shape: add a transform with a fixed size, "
                    f"such as torchvision.transforms.v2.CenterCrop with size=[{expected[1]},{expected[2]}]"
                )
        return expected

    def _transform(self, image: Tensor, index: int, seed: int) -> Tensor:
        _seed_generators(seed)
        result: Any = image.clone()  # or a transform in place would change the stored image
        for number, transform in enumerate(self.transforms):
            try:
                result = transform(result)
            except Exception as error:  # of the user's code, or of arguments that don't fit the image
                problem = f"{type(error).__name__}: {' '.join(str(error).split())}{_place(error)}"
                if _name(transform) in _LEFT_OUT:
                    problem += "; leave it out, since images are uint8 tensors already and litlab normalizes them"
                raise UserError(
                    f"{self.setting}.{number}: {_name(transform)} failed for image {index}: {problem}"
                ) from error
        if not isinstance(result, Tensor) or result.dtype != torch.uint8 or result.ndim != 3:
            description = (
                f"{result.dtype} of shape {tuple(result.shape)}"
                if isinstance(result, Tensor)
                else type(result).__name__
            )
            raise UserError(
                f"{self.setting}: expected a uint8 tensor c h w after the last transform, found {description}; "
                "leave out Normalize, since litlab normalizes by data.mean and data.std; if a transform needs another "
                "type, end with torchvision.transforms.v2.ToDtype (dtype torch.uint8, scale true) or PILToTensor"
            )
        return result.as_subclass(Tensor)


def make_transforms(
    transforms: Mapping[Literal["train", "eval"], Sequence[Any]], seed: int
) -> dict[str, ImageTransforms]:
    """Return the transforms of `data.transforms` by their name: "train" and "eval"."""
    names: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    return {name: ImageTransforms(transforms[name], seed=seed, setting=f"data.transforms.{name}") for name in names}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, as a worker of a loader does.

    With more threads, sums over an image may have other bits. Nor are they faster: in operations on small images they
    wait for each other (123 s instead of 3 were measured where other processes kept the cores busy).
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def _generators_restored() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of other devices, too
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _shape(image: Tensor) -> tuple[int, int, int]:
    channels, height, width = image.shape
    return channels, height, width


def _text(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _name(transform: Transform) -> str:
    function = getattr(transform, "func", transform)  # of a partial
    return str(getattr(function, "__name__", type(function).__name__))


def _place(error: Exception) -> str:
    """Name the innermost line of the user's own code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
