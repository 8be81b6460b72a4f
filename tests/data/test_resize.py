"""Resizing images of other proportions: squash, crop and pad, for decoded files and for tensors."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from litlab.data.image_decoder import decode_image
from litlab.data.preprocess import Preprocess
from litlab.data.resize import Box, Resize, resize_boxes

# An image of one pixel for each position: its row and column are its colors.
POSITIONS = np.stack([*np.meshgrid(np.arange(60), np.arange(40), indexing="ij"), np.zeros((60, 40))], axis=2)


@pytest.mark.parametrize(
    ("resize", "size", "target", "source", "placed"),
    [
        ("squash", (60, 40), (20, 20), (0, 0, 60, 40), (0, 0, 20, 20)),
        ("crop", (60, 40), (20, 20), (10, 0, 40, 40), (0, 0, 20, 20)),
        ("crop", (40, 60), (20, 20), (0, 10, 40, 40), (0, 0, 20, 20)),
        ("crop", (60, 40), (10, 40), (25, 0, 10, 40), (0, 0, 10, 40)),
        ("pad", (60, 40), (20, 20), (0, 0, 60, 40), (0, 3, 20, 13)),
        ("pad", (40, 60), (20, 20), (0, 0, 40, 60), (3, 0, 13, 20)),
        ("pad", (60, 40), (30, 20), (0, 0, 60, 40), (0, 0, 30, 20)),
        ("crop", (60, 40), (30, 20), (0, 0, 60, 40), (0, 0, 30, 20)),
        ("crop", (1, 1000), (20, 20), (0, 499, 1, 1), (0, 0, 20, 20)),
        ("pad", (1, 1000), (20, 20), (0, 0, 1, 1000), (9, 0, 1, 20)),
    ],
)
def test_boxes(
    resize: Resize, size: tuple[int, int], target: tuple[int, int], source: tuple[int, ...], placed: tuple[int, ...]
) -> None:
    assert resize_boxes(size, target, resize) == (Box(*source), Box(*placed))


@pytest.mark.parametrize("target", [(24, 24), (16, 40), (81, 30), (60, 40), (30, 20)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_files_and_tensors_are_resized_as_by_pillow(resize: Resize, target: tuple[int, int]) -> None:
    image, (height, width) = Image.fromarray(POSITIONS.astype(np.uint8)), target
    file = io.BytesIO()
    image.save(file, "PNG")
    method = {"squash": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[resize]
    expected = np.asarray(method(image, (width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    decoded = decode_image(file.getvalue(), target, "here", resize=resize)
    assert decoded.shape == (3, height, width)
    # ImageOps.fit interpolates at the borders with pixels outside of the crop, which moves them by half a pixel.
    np.testing.assert_allclose(decoded.astype(float), expected, rtol=0, atol=2.5 if resize == "crop" else 0)
    preprocess = Preprocess(image_size=target, mean=(0.0,) * 3, std=(1.0,) * 3, resize=resize)
    pixels = preprocess.resize(torch.from_numpy(POSITIONS.astype(np.uint8).transpose(2, 0, 1).copy())[None])[0]
    assert pixels.dtype == torch.uint8
    np.testing.assert_allclose(pixels.numpy().astype(float), decoded, rtol=0, atol=1)
