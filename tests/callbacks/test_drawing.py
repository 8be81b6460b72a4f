"""Pixels of what is drawn."""

import numpy as np
import pytest
import torch
from small_fit import MEAN, STD

from litlab.callbacks import confusion
from litlab.callbacks.drawing import contact_sheet, to_pixels


def test_pixels_are_those_before_the_normalisation() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    assert np.array_equal(to_pixels((pixels / 255 - mean) / std, mean=MEAN, std=STD), pixels.permute(0, 2, 3, 1))
    grey = to_pixels((pixels[:, :1] / 255 - 0.5) / 0.2, mean=(0.5,), std=(0.2,))
    assert np.array_equal(grey, pixels[:, :1].expand(-1, 3, -1, -1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(("size", "shown_size"), [(32, 128), (28, 112), (224, 112)])
def test_tiles_are_enlarged_by_whole_factors_or_reduced(size: int, shown_size: int) -> None:
    images = np.zeros((3, size, size, 3), dtype=np.uint8)
    images[1, :, :, 0] = 200
    sheet = contact_sheet(images, ["a", "b", "c" * 200])
    dark_or_red = (sheet[:, :, 1] == 0) & (sheet[:, :, 2] == 0)
    columns = np.flatnonzero(dark_or_red[20])
    assert len(columns) == 2 * shown_size  # two tiles in the first row
    assert (sheet[20, columns[shown_size:]] == (200, 0, 0)).all()


def test_the_colour_of_a_cell_is_the_share_of_its_true_class() -> None:
    picture = confusion.draw_confusion_matrix(np.array([[30, 0], [5, 5]]), ("yes", "no"))
    colours, areas = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    cells = {tuple(colours[index]) for index in np.argsort(areas)[-4:]}
    # Matplotlib's "Blues" at 1, 0 and 0.5 (two cells), and the paper around them.
    assert cells == {(8, 48, 107), (247, 251, 255), (106, 173, 213), (255, 255, 255)}
