"""Confusion matrices of validation and test as pictures, drawn by Pillow: Matplotlib takes a second for one."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from litlab.callbacks.images import ELLIPSIS, INK, PAPER, drawable_names, get_font, truncate
from litlab.callbacks.predictions import (
    GAP,
    MARGIN,
    MAX_NAME_WIDTH,
    MIN_TEXT_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    PredictionCounts,
    PredictionPicture,
    draw_upright,
    text_mask,
)

MAX_CLASSES_WITH_COUNTS = 25  # with more, the counts would not fit their cells
MAX_CLASSES_WITH_NAMES = 60  # with more, some of the labels are shown as numbers
MAX_NUMBERS = 10  # on an axis
MAX_SIDE = 1200  # of the matrix; all lengths are in pixels
MIN_CELL_WITH_LINES = 12
SCALE_WIDTH = 24
FAINT = (185, 185, 185)  # zeros
# The colors of the fractions 0, 1/4, 1/2, 3/4 and 1, interpolated linearly between them.
ANCHORS = ((246, 249, 254), (186, 212, 236), (104, 164, 213), (39, 108, 174), (8, 46, 104))
DARK_FRACTION = 0.6  # from here on, white text is easier to read than dark text
NUM_COLORS = 257  # odd, so that 1/2 is among them


def draw_confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix; the color of a cell is its fraction of the true class.

    Args:
        counts: Number of images, shape `true predicted`.
        class_names: Class names in the order of the labels.

    Returns:
        Picture, `h w 3`.
    """
    num_classes = len(class_names)
    side = _side(counts)
    labels = _labels(class_names)
    distance = side / len(labels)
    font = get_font(min(max(round(0.6 * distance), MIN_TEXT_SIZE), TEXT_SIZE), "".join(labels.values()) + ELLIPSIS)
    labels = {row: truncate(label, MAX_NAME_WIDTH, font) for row, label in labels.items()}
    labels_width = math.ceil(max(font.getlength(label) for label in labels.values()))
    is_slanted = labels_width + GAP > distance
    labels_height = math.ceil((labels_width + TEXT_SIZE) * math.sqrt(0.5)) if is_slanted else TEXT_SIZE

    left, top = MARGIN + TEXT_SIZE + 2 * GAP + labels_width + GAP, MARGIN + TITLE_SIZE + 2 * GAP
    right, bottom = left + side, top + side
    scale = (right + 3 * GAP, top, right + 3 * GAP + SCALE_WIDTH, bottom)
    width = scale[2] + GAP + math.ceil(get_font(TEXT_SIZE).getlength("0.0")) + GAP + TEXT_SIZE + MARGIN
    sheet = Image.new("RGB", (width, bottom + labels_height + 3 * GAP + TEXT_SIZE + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)

    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _draw_cells(sheet, counts, fractions, (left, top, right, bottom))
    for row, label in labels.items():
        center = (row + 0.5) * side / num_classes
        draw.text((left - GAP, top + center), label, fill=INK, font=font, anchor="rm")
        if is_slanted:
            _draw_slanted(sheet, (left + center, bottom + GAP), label, font)
        else:
            draw.text((left + center, bottom + GAP), label, fill=INK, font=font, anchor="ma")
    _draw_scale(sheet, scale)

    _draw_titles(sheet, counts, (left + side / 2, top + side / 2))
    return np.asarray(sheet)


def _side(counts: NDArray[np.int64]) -> int:
    """Compute the side of the matrix: a multiple of the number of classes, if there are enough pixels for that."""
    num_classes = len(counts)
    cell = min(240 + 40 * num_classes, MAX_SIDE) // num_classes
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        cell = max(cell, math.ceil(get_font(TEXT_SIZE).getlength(f"{counts.max()}")) + GAP)
    return cell * num_classes if cell else MAX_SIDE


def _labels(class_names: Sequence[str]) -> dict[int, str]:
    """Choose the labels of rows and columns: all names, or some numbers."""
    if len(class_names) <= MAX_CLASSES_WITH_NAMES:
        return dict(enumerate(drawable_names(class_names)[0]))
    steps = (digit * 10**power for power in range(1, 9) for digit in (1, 2, 5))
    step = next(step for step in steps if len(class_names) <= step * MAX_NUMBERS)
    return {row: f"{row}" for row in range(0, len(class_names), step)}


def _colors(fractions: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map fractions of any shape to colors of that shape and 3."""
    positions, anchors = np.linspace(0, 1, NUM_COLORS), np.linspace(0, 1, len(ANCHORS))
    table = np.stack([np.interp(positions, anchors, channel) for channel in zip(*ANCHORS, strict=True)], axis=1)
    colors: NDArray[np.uint8] = table.round().astype(np.uint8)[(fractions * (NUM_COLORS - 1)).round().astype(int)]
    return colors


def _draw_cells(
    sheet: Image.Image, counts: NDArray[np.int64], fractions: NDArray[np.float64], box: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = box
    draw, side, cell = ImageDraw.Draw(sheet), right - left, (right - left) / len(counts)
    resample = Image.Resampling.NEAREST if cell >= 1 else Image.Resampling.BOX
    sheet.paste(Image.fromarray(_colors(fractions)).resize((side, side), resample), (left, top))
    if cell >= MIN_CELL_WITH_LINES:
        for line in range(1, len(counts)):
            offset = round(line * cell)
            draw.line((left + offset, top, left + offset, bottom - 1), fill=PAPER)
            draw.line((left, top + offset, right - 1, top + offset), fill=PAPER)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=INK)
    if len(counts) <= MAX_CLASSES_WITH_COUNTS:
        font = get_font(TEXT_SIZE)
        for (row, column), count in np.ndenumerate(counts):
            fill = PAPER if fractions[row, column] >= DARK_FRACTION else INK if count else FAINT
            position = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
            draw.text(position, f"{count}", fill=fill, font=font, anchor="mm")


def _draw_scale(sheet: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    draw, height = ImageDraw.Draw(sheet), bottom - top
    colors = _colors(np.linspace(1, 0, height).reshape(height, 1)).repeat(right - left, axis=1)
    sheet.paste(Image.fromarray(colors), (left, top))
    draw.rectangle((left - 1, top - 1, right, bottom), outline=INK)
    for tenths in range(0, 11, 2):
        y = bottom - 1 - round(tenths / 10 * (height - 1))
        draw.line((right, y, right + GAP // 2, y), fill=INK)
        draw.text((right + GAP, y), f"{tenths / 10}", fill=INK, font=get_font(TEXT_SIZE), anchor="lm")


def _draw_titles(sheet: Image.Image, counts: NDArray[np.int64], middle: tuple[float, float]) -> None:
    """Draw the title and the labels of axes and scale; `middle` is that of the matrix."""
    draw = ImageDraw.Draw(sheet)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    title = f"{counts.sum():,} images, accuracy {100 * accuracy:.2f} %"
    draw.text((middle[0], MARGIN), title, fill=INK, font=get_font(TITLE_SIZE), anchor="ma")
    draw.text((middle[0], sheet.height - MARGIN), "predicted", fill=INK, font=get_font(TEXT_SIZE), anchor="md")
    draw_upright(sheet, (MARGIN + TEXT_SIZE / 2, middle[1]), "true")
    draw_upright(sheet, (sheet.width - MARGIN - TEXT_SIZE / 2, middle[1]), "share of the true class")


def _draw_slanted(sheet: Image.Image, end: tuple[float, float], text: str, font: ImageFont.FreeTypeFont) -> None:
    """Draw a line that rises by 45 degrees and ends at a point."""
    double = font.font_variant(size=2 * round(font.size))
    large = text_mask(text, double)  # rotated at twice its size, or strokes would be blurred
    rotated = large.rotate(45, Image.Resampling.BILINEAR, expand=True).reduce(2)
    reach = large.width / 4 * math.sqrt(0.5)  # from the center to the middle of the end, in x and in y
    x, y = end[0] - reach - rotated.width / 2, end[1] + reach - rotated.height / 2
    sheet.paste(INK, (round(x), round(y)), rotated)


class ConfusionMatrix(PredictionPicture):
    """Log `val/confusion_matrix` and `test/confusion_matrix`: rows are true classes, columns predicted ones."""

    name = "confusion_matrix"

    def draw(self, counts: PredictionCounts) -> tuple[NDArray[np.uint8], Sequence[str]]:
        """Draw the matrix, with a legend for names that it shows as numbers."""
        has_names = len(self._class_names) <= MAX_CLASSES_WITH_NAMES
        legend = drawable_names(self._class_names)[1] if has_names else self._class_names
        return draw_confusion_matrix(counts.confusion, self._class_names), legend
