"""Dispatch to operations on other devices than the CPU."""

import torch
from support.pixels import NUM_IMAGES
from torch import Tensor

from litlab.data.augment.color import ColorJitter
from litlab.data.augment.rand_augment import RandAugment


class OtherDevice(Tensor):
    """Tensor that is dispatched as on other devices than the CPU."""

    is_cpu = False


def test_other_devices_compute_the_same(images: Tensor) -> None:
    indices = torch.arange(NUM_IMAGES)
    for operations in (
        RandAugment(seed=0, num_ops=2, magnitude=9),
        ColorJitter(seed=3, brightness=0.5, contrast=0.4, saturation=0.3, hue=0.1),
    ):
        result = operations(images.as_subclass(OtherDevice), indices, 0)
        assert isinstance(result, OtherDevice)
        assert torch.equal(result.as_subclass(Tensor), operations(images, indices, 0))
