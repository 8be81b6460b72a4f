"""Cutout against all squares that the paper allows."""

import numpy as np
import pytest
import torch

from litlab.data.augment.cutout import cut_out


def spans(size: int, side: int) -> set[tuple[int, int]]:
    """Return first and last pixel, in one direction, of the squares around each pixel."""
    starts = [center - side // 2 for center in range(size)]
    return {(max(start, 0), min(start + side, size) - 1) for start in starts}


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_erases_a_clipped_square_around_any_pixel(side: int) -> None:
    height, width = 9, 12
    images = torch.ones(4000, 2, height, width)
    erased = cut_out(images, torch.arange(4000), 0, seed=0, side=side) == 0
    assert images.min() == 1, "the input is not overwritten"
    boxes = set()
    for image in erased.numpy():
        rows, columns = np.nonzero(image[0])
        box = np.zeros((height, width), dtype=bool)
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert (image == box).all()
        boxes.add((rows.min(), rows.max(), columns.min(), columns.max()))
    assert boxes == {(*rows, *columns) for rows in spans(height, side) for columns in spans(width, side)}
