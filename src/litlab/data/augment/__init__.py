"""Augmentation of whole batches: truly per sample, without a loop over images and without random state.

One room per idea. Each has pure functions that draw (from seed, epoch and the images' indices) and pure functions that
do what was drawn, so that a slow reference can be given the same decisions.
"""

from litlab.data.augment.geometry import shift_and_mirror
from litlab.data.augment.mix import Mixing
from litlab.data.augment.pipeline import Augmentation

__all__ = ["Augmentation", "Mixing", "shift_and_mirror"]
