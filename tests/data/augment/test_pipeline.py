"""Distributions of the augmentations of single images, and what holds for all of them."""

import hashlib
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from litlab.data.augment import Augmentation
from litlab.data.augment.geometry import random_flips

ALL: dict[str, Any] = {
    "crop_padding": 2,
    "flip": True,
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "rand_augment": {"num_ops": 2, "magnitude": 9},
    "cutout": 4,
}
NONE: dict[str, Any] = {"crop_padding": 0, "flip": False, "color_jitter": None, "rand_augment": None, "cutout": 0}


def augmented(images: Tensor, indices: Tensor, *, seed: int = 0, epoch: int = 0, **settings: Any) -> Tensor:
    """Augment with the given settings alone; return floats, so that cutout shows as -1."""
    augment = Augmentation(seed=seed, **{**NONE, **settings})
    pixels = augment.on_pixels(images, indices, epoch)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == images.shape
    return augment.on_normalized(pixels.float() + 1, indices, epoch) - 1


def some_images(num_images: int, num_channels: int = 3, height: int = 9, width: int = 12) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, num_channels, height, width), dtype=torch.uint8, generator=random)


def test_shifts_and_flips_are_uniform() -> None:
    """Read the shifts from an image whose pixels encode their positions."""
    num_images, padding = 4000, 2
    pixels = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7).expand(num_images, 1, 7, 7)
    moved = augmented(pixels, torch.arange(num_images), crop_padding=padding, flip=True)
    center = moved[:, 0, 3, 3].long() - 24
    down, right = (center + 3).div(7, rounding_mode="floor"), (center + 3) % 7 - 3
    flipped = moved[:, 0, 3, 2] > moved[:, 0, 3, 4]
    for shifts in (down, right):
        counts = torch.bincount(shifts + padding, minlength=5)
        assert len(counts) == 5
        assert (counts - num_images / 5).abs().max() < 110  # 4 deviations
    assert abs(int(flipped.sum()) - num_images / 2) < 130
    agreement = torch.corrcoef(torch.stack([down, right, flipped]).double())
    assert agreement.fill_diagonal_(0).abs().max() < 0.06


def test_parts_can_be_switched_off() -> None:
    images, indices = torch.arange(2 * 25, dtype=torch.uint8).view(2, 1, 5, 5), torch.arange(2)
    assert torch.equal(augmented(images, indices), images.float())
    assert (augmented(images, indices, cutout=1) == -1).flatten(1).sum(1).tolist() == [1, 1]
    many = images[:1].expand(50, 1, 5, 5)
    flips = augmented(many, torch.arange(50), flip=True)
    assert {tuple(image.flatten().tolist()) for image in flips} == {
        tuple(image.flatten().tolist()) for image in (images[0], images[0].flip(2))
    }
    crops = augmented(many, torch.arange(50), crop_padding=1)
    assert len({int(image[0, 2, 2]) for image in crops}) == 9
    assert all(int(crop[0, 2, 2]) < int(crop[0, 2, 3]) or int(crop[0, 2, 2]) % 5 == 3 for crop in crops)


def test_crop_and_flip_give_the_values_that_recorded_runs_had() -> None:
    moved = augmented(some_images(200), torch.arange(100, 300), seed=7, epoch=2, crop_padding=4, flip=True)
    assert hashlib.sha256(moved.to(torch.uint8).numpy().tobytes()).hexdigest().startswith("e7b53bdd7f868bc6")


def test_alternating_flip_begins_at_random_and_then_flips_every_other_epoch() -> None:
    indices = torch.arange(2000)
    epochs = [random_flips(indices, seed=3, epoch=epoch, flip="alternating") for epoch in range(4)]
    assert abs(int(epochs[0].sum()) - 1000) < 90  # 4 deviations
    assert torch.equal(epochs[0], random_flips(indices, seed=3, epoch=0, flip=True))
    for earlier, later in pairwise(epochs):
        assert torch.equal(later, ~earlier)
    assert not torch.equal(epochs[0], random_flips(indices, seed=4, epoch=0, flip="alternating"))
    images = some_images(20)
    for epoch in (0, 1):
        flips = augmented(images, indices[:20], seed=3, epoch=epoch, flip="alternating")
        expected = torch.where(epochs[epoch][:20, None, None, None], images.flip(3), images)
        assert torch.equal(flips, expected.float())


@pytest.mark.parametrize("num_channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(num_channels: int) -> None:
    images, indices = some_images(64, num_channels), torch.arange(100, 164)
    whole = augmented(images, indices, seed=7, epoch=2, **ALL)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augmented(images[order], indices[order], seed=7, epoch=2, **ALL), whole[order])
    for sizes in ([1, 63], [0, 64], [13, 50, 1]):
        parts = zip(images.split(sizes), indices.split(sizes), strict=True)
        assert torch.equal(torch.cat([augmented(*part, seed=7, epoch=2, **ALL) for part in parts]), whole)


@pytest.mark.parametrize("name", ALL)
def test_epochs_and_seeds_differ_and_repeat(name: str) -> None:
    images, indices, settings = some_images(32), torch.arange(32), {name: ALL[name]}
    first = augmented(images, indices, **settings)
    assert not torch.equal(first, images.float())
    assert torch.equal(augmented(images, indices, **settings), first)
    for offset, other in ((0, {"epoch": 1}), (0, {"seed": 1}), (1, {})):
        assert not torch.equal(augmented(images, indices + offset, **other, **settings), first)


def test_augmentation_does_not_overwrite_the_data_set() -> None:
    images = some_images(64)
    before = images.clone()
    augmented(images, torch.arange(64), **{**ALL, "crop_padding": 0, "flip": False})
    assert torch.equal(images, before)
