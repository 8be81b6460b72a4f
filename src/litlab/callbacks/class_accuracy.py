"""Accuracy of each class in validation and test as a picture of bars, drawn by Pillow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from litlab.callbacks.images import ELLIPSIS, INK, PAPER, drawable_names, get_font, truncate
from litlab.callbacks.predictions import (
    GAP,
    MARGIN,
    MAX_NAME_WIDTH,
    TEXT_SIZE,
    TITLE_SIZE,
    PredictionCounts,
    PredictionPicture,
)

MAX_ROWS = 60  # of more classes, those with the lowest accuracy are drawn
ROW_HEIGHT, BAR_HEIGHT, BAR_WIDTH = 22, 14, 400  # pixels
BAR, TRACK, LINE = (39, 108, 174), (234, 239, 245), (200, 80, 60)


def draw_class_accuracy(confusion: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a bar for the accuracy of each class, the lowest first, with a line at the mean over the classes.

    Args:
        confusion: Number of images, shape `true predicted`.
        class_names: Class names in the order of the labels.

    Returns:
        Picture, `h w 3`.
    """
    num_images = confusion.sum(axis=1)
    accuracies = np.diag(confusion) / np.maximum(num_images, 1)
    present = np.flatnonzero(num_images)
    rows = present[np.argsort(accuracies[present], kind="stable")]
    mean = accuracies[present].mean() if len(present) else 0.0
    is_cut, shown = len(rows) > MAX_ROWS, rows[:MAX_ROWS]
    lines = [
        f"{num_images.sum():,} images, accuracy {100 * np.trace(confusion) / max(num_images.sum(), 1):.2f} %",
        f"mean over classes {100 * mean:.2f} %" + (f"; the {MAX_ROWS} lowest of {len(rows):,}" if is_cut else ""),
    ]

    names = drawable_names(class_names)[0]
    font = get_font(TEXT_SIZE, "".join(names) + ELLIPSIS)
    labels = [truncate(names[row], MAX_NAME_WIDTH, font) for row in shown]
    values = [f"{100 * accuracies[row]:.1f} % of {num_images[row]:,}" for row in shown]
    title_font, value_font = get_font(TITLE_SIZE), get_font(TEXT_SIZE)
    left = MARGIN + _width(labels, font) + GAP
    right = left + BAR_WIDTH
    top = MARGIN + 2 * (TITLE_SIZE + GAP) + GAP
    width = max(right + GAP + _width(values, value_font), MARGIN + _width(lines, title_font)) + MARGIN
    sheet = Image.new("RGB", (width, top + len(shown) * ROW_HEIGHT + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * (TITLE_SIZE + GAP)), line, fill=INK, font=title_font)
    for number, (row, label, value) in enumerate(zip(shown, labels, values, strict=True)):
        y = top + number * ROW_HEIGHT
        end = left + round(accuracies[row] * BAR_WIDTH)
        draw.rectangle((left, y, right - 1, y + BAR_HEIGHT - 1), fill=TRACK)
        if end > left:
            draw.rectangle((left, y, end - 1, y + BAR_HEIGHT - 1), fill=BAR)
        draw.text((left - GAP, y + BAR_HEIGHT / 2), label, fill=INK, font=font, anchor="rm")
        draw.text((right + GAP, y + BAR_HEIGHT / 2), value, fill=INK, font=value_font, anchor="lm")
    x = left + round(mean * (BAR_WIDTH - 1))
    draw.line((x, top - GAP // 2, x, top + len(shown) * ROW_HEIGHT - GAP // 2), fill=LINE)
    return np.asarray(sheet)


def _width(lines: Sequence[str], font: ImageFont.FreeTypeFont) -> int:
    return int(np.ceil(max((font.getlength(line) for line in lines), default=0)))


class ClassAccuracy(PredictionPicture):
    """Log `val/class_accuracy` and `test/class_accuracy`: a bar for each class that has images."""

    name = "class_accuracy"

    def draw(self, counts: PredictionCounts) -> tuple[NDArray[np.uint8], Sequence[str]]:
        """Draw the bars, with a legend for names that they show as numbers."""
        return draw_class_accuracy(counts.confusion, self._class_names), drawable_names(self._class_names)[1]
