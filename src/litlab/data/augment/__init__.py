"""Augmentation of whole batches: per image, without a loop over images and without random state.

Each module has pure functions that draw decisions (from seed, epoch and the images' indices) and pure functions that
apply them, so that a slow reference can be given the same decisions.
"""

from litlab.data.augment.geometry import shift_and_flip
from litlab.data.augment.mix import Mixing
from litlab.data.augment.pipeline import Augmentation

__all__ = ["Augmentation", "Mixing", "shift_and_flip"]
