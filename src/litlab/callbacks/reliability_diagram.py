"""Reliability diagrams of validation and test as pictures, drawn by Pillow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from litlab.callbacks.images import INK, PAPER, get_font
from litlab.callbacks.predictions import (
    GAP,
    MARGIN,
    TEXT_SIZE,
    TITLE_SIZE,
    PredictionCounts,
    PredictionPicture,
    draw_upright,
)

SIDE = 450  # of the diagram, in pixels; a multiple of the 15 bins
HISTOGRAM_HEIGHT = 90
BAR, LACKING, EXCEEDING, DIAGONAL = (104, 164, 213), (240, 190, 180), (60, 120, 90), (150, 150, 150)


def draw_reliability_diagram(counts: PredictionCounts) -> NDArray[np.uint8]:
    """Draw accuracy against confidence in bins, as in Guo et al. 2017 (arXiv:1706.04599), above the share of images.

    A bar is the accuracy of the images in a bin. A light red box above it reaches up to their mean confidence: the
    network is overconfident. A green box within it reaches down to their mean confidence: it is underconfident.

    Args:
        counts: Counts of all images.

    Returns:
        Picture, `h w 3`.
    """
    error = float(np.abs(counts.correct - counts.confidence).sum() / max(counts.images.sum(), 1))
    images, correct, confidence = (_join_last(values) for values in (counts.images, counts.correct, counts.confidence))
    accuracies = correct / np.maximum(images, 1)
    confidences = np.nan_to_num(confidence / np.maximum(images, 1))  # of weights that diverged
    shares = images / max(images.sum(), 1)

    label_width = round(get_font(TEXT_SIZE).getlength("0.0"))
    left, top = MARGIN + TEXT_SIZE + GAP + label_width + GAP, MARGIN + TITLE_SIZE + TEXT_SIZE + 3 * GAP
    right, bottom = left + SIDE, top + SIDE
    histogram = bottom + TEXT_SIZE + 4 * GAP, bottom + TEXT_SIZE + 4 * GAP + HISTOGRAM_HEIGHT
    sheet = Image.new("RGB", (right + MARGIN + label_width, histogram[1] + 2 * TEXT_SIZE + 3 * GAP + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), get_font(TEXT_SIZE)

    middle, width = (left + right) / 2, SIDE // len(images)
    title = f"{counts.images.sum():,} images, calibration error {error:.4f}"
    draw.text((middle, MARGIN), title, fill=INK, font=get_font(TITLE_SIZE), anchor="ma")
    _draw_legend(draw, (left, MARGIN + TITLE_SIZE + GAP))
    for number in np.flatnonzero(images).tolist():
        start, end = left + number * width + 1, left + (number + 1) * width - 2
        accurate, confident = (bottom - round(float(values[number]) * SIDE) for values in (accuracies, confidences))
        draw.rectangle((start, min(accurate, bottom - 1), end, bottom - 1), fill=BAR)
        if confident < accurate:
            draw.rectangle((start, confident, end, accurate - 1), fill=LACKING)
        elif confident > accurate:
            draw.rectangle((start, accurate, end, confident - 1), outline=EXCEEDING, width=2)
        share = histogram[1] - round(shares[number] / shares.max() * HISTOGRAM_HEIGHT)
        draw.rectangle((start, min(share, histogram[1] - 1), end, histogram[1] - 1), fill=BAR)
    draw.line((left, bottom, right, top), fill=DIAGONAL)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=INK)
    draw.rectangle((left - 1, histogram[0] - 1, right, histogram[1]), outline=INK)
    for tenths in range(0, 11, 2):
        offset = round(tenths / 10 * SIDE)
        draw.text((left - GAP, bottom - offset), f"{tenths / 10}", fill=INK, font=font, anchor="rm")
        draw.text((left + offset, bottom + GAP), f"{tenths / 10}", fill=INK, font=font, anchor="ma")
        draw.text((left + offset, histogram[1] + GAP), f"{tenths / 10}", fill=INK, font=font, anchor="ma")
    note = f"share of images, up to {100 * shares.max():.0f} %"
    draw.text((left + GAP // 2, histogram[0] + GAP // 2), note, fill=INK, font=font)
    draw.text((middle, sheet.height - MARGIN), "confidence", fill=INK, font=font, anchor="md")
    draw_upright(sheet, (MARGIN + TEXT_SIZE / 2, (top + bottom) / 2), "accuracy")
    return np.asarray(sheet)


def _join_last(values: NDArray[Any]) -> NDArray[Any]:
    """Add the images of probability 1 to the last bin."""
    return np.append(values[:-2], values[-2:].sum())


def _draw_legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    x, y = corner
    for color, is_filled, text in (
        (BAR, True, "accuracy"),
        (LACKING, True, "overconfident by"),
        (EXCEEDING, False, "underconfident by"),
    ):
        box = (x, y, x + TEXT_SIZE - 1, y + TEXT_SIZE - 1)
        draw.rectangle(box, fill=color if is_filled else None, outline=None if is_filled else color, width=2)
        font = get_font(TEXT_SIZE)
        draw.text((x + TEXT_SIZE + GAP // 2, y + TEXT_SIZE / 2), text, fill=INK, font=font, anchor="lm")
        x += TEXT_SIZE + round(font.getlength(text)) + 2 * GAP


class ReliabilityDiagram(PredictionPicture):
    """Log `val/reliability_diagram` and `test/reliability_diagram`: accuracy by confidence."""

    name = "reliability_diagram"

    def draw(self, counts: PredictionCounts) -> tuple[NDArray[np.uint8], Sequence[str]]:
        """Draw the diagram, which shows no classes."""
        return draw_reliability_diagram(counts), ()
