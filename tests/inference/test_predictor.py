"""What a predictor takes for an image: all kinds of them, and what is none."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from support.saved_run import SIZE, as_image, make_info, make_network
from torch import Tensor

from litlab.data.preprocess import Preprocess
from litlab.errors import UserError
from litlab.inference.predictor import BATCH_SIZE, Predictor
from litlab.tasks.tta import TTA


def make_predictor(channels: int = 3) -> Predictor:
    info = make_info(channels)
    preprocess = Preprocess(image_size=(SIZE, SIZE), mean=info.mean, std=info.std)
    return Predictor(
        network=make_network(channels), preprocess=preprocess, dataset_info=info, tta=TTA(flip=False, shift=0)
    )


def test_all_kinds_of_images_give_the_same(tmp_path: Path, pixels: Tensor) -> None:
    predictor = make_predictor()
    as_image(pixels).save(tmp_path / "image.png")
    array = pixels.permute(1, 2, 0).numpy()
    kinds = [pixels, pixels[None], array, as_image(pixels), tmp_path / "image.png", str(tmp_path / "image.png")]
    expected = predictor(pixels)
    for kind in kinds:
        assert torch.equal(predictor(kind), expected), type(kind)
    torch.testing.assert_close(predictor(kinds), expected.expand(len(kinds), -1))
    assert predictor([]).shape == (0, 3)


def test_alpha_is_dropped_and_grey_becomes_colour(pixels: Tensor) -> None:
    predictor = make_predictor()
    alpha = torch.full((1, SIZE, SIZE), 7, dtype=torch.uint8)
    assert torch.equal(predictor(torch.cat([pixels, alpha])), predictor(pixels))
    assert torch.equal(predictor(as_image(torch.cat([pixels, alpha]))), predictor(pixels))
    grey = pixels[:1]
    expected = predictor(grey.expand(3, -1, -1))
    for kind in (grey, torch.cat([grey, alpha]), grey[0].numpy(), PIL.Image.fromarray(grey[0].numpy())):
        assert torch.equal(predictor(kind), expected)


def test_colours_become_grey_for_a_grey_network(pixels: Tensor) -> None:
    predictor = make_predictor(channels=1)
    expected = torch.from_numpy(np.array(as_image(pixels).convert("L")))
    for kind in (pixels, as_image(pixels), expected[None]):
        assert torch.equal(predictor.pixels(kind)[0, 0], expected)


def test_other_sizes_are_resized(tmp_path: Path) -> None:
    predictor = make_predictor()
    large = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    as_image(large).save(tmp_path / "image.png")
    resized = np.array(as_image(large).resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    for kind in (as_image(large), tmp_path / "image.png"):
        assert np.array_equal(predictor.pixels(kind)[0].numpy(), resized)
    torch.testing.assert_close(predictor(large), predictor(torch.from_numpy(resized)), atol=0.01, rtol=0)


def test_many_images_are_split_into_batches() -> None:
    predictor = make_predictor()
    images = torch.randint(0, 256, (BATCH_SIZE + 2, 3, SIZE, SIZE), dtype=torch.uint8)
    sizes: list[int] = []
    predictor.network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    torch.testing.assert_close(predictor(images), predictor(list(images)))
    assert sizes == [BATCH_SIZE, 2] * 2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, SIZE, SIZE), "found torch.float32"),
        (torch.zeros(SIZE, SIZE, dtype=torch.uint8), "found torch.uint8 of shape"),
        (np.zeros((SIZE, SIZE, 3)), "found float64"),
        (torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8), f"has {SIZE} channels"),
        (3, "found a int"),
        ("nowhere.png", "nowhere.png can't be read: No such file"),
        (__file__, "test_predictor.py can't be read as a JPEG"),
    ],
)
def test_what_is_no_image_is_named(image: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_predictor()(image)


def test_images_in_memory_need_no_file(pixels: Tensor) -> None:
    file = io.BytesIO()
    as_image(pixels).save(file, "png")
    predictor = make_predictor()
    assert torch.equal(predictor(PIL.Image.open(file)), predictor(pixels))
