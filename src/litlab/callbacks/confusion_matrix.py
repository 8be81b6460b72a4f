"""Confusion matrices of validation and test as pictures, drawn by Pillow: Matplotlib takes a second for one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchmetrics.classification import MulticlassConfusionMatrix

from litlab.callbacks.images import ELLIPSIS, INK, PAPER, drawable_names, get_font, log_image, truncate
from litlab.data.loader import Batch

MAX_CLASSES_WITH_COUNTS = 25  # with more, the counts would not fit their cells
MAX_CLASSES_WITH_NAMES = 60  # with more, some of the labels are shown as numbers
MAX_NUMBERS = 10  # on an axis
MAX_SIDE = 1200  # of the matrix; all lengths are in pixels
MIN_CELL_WITH_LINES = 12
MAX_NAME_WIDTH = 200
MARGIN = 16
GAP = 8
SCALE_WIDTH = 24
TITLE_SIZE, TEXT_SIZE, MIN_TEXT_SIZE = 18, 14, 11  # of the fonts
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
    _draw_upright(sheet, (MARGIN + TEXT_SIZE / 2, middle[1]), "true")
    _draw_upright(sheet, (sheet.width - MARGIN - TEXT_SIZE / 2, middle[1]), "share of the true class")


def _draw_upright(sheet: Image.Image, center: tuple[float, float], text: str) -> None:
    """Draw a line that is read from bottom to top."""
    mask = _mask(text, get_font(TEXT_SIZE)).transpose(Image.Transpose.ROTATE_90)
    sheet.paste(INK, (round(center[0] - mask.width / 2), round(center[1] - mask.height / 2)), mask)


def _draw_slanted(sheet: Image.Image, end: tuple[float, float], text: str, font: ImageFont.FreeTypeFont) -> None:
    """Draw a line that rises by 45 degrees and ends at a point."""
    double = font.font_variant(size=2 * round(font.size))
    large = _mask(text, double)  # rotated at twice its size, or strokes would be blurred
    rotated = large.rotate(45, Image.Resampling.BILINEAR, expand=True).reduce(2)
    reach = large.width / 4 * math.sqrt(0.5)  # from the center to the middle of the end, in x and in y
    x, y = end[0] - reach - rotated.width / 2, end[1] + reach - rotated.height / 2
    sheet.paste(INK, (round(x), round(y)), rotated)


def _mask(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (math.ceil(font.getlength(text)) + 2, ascent + descent))
    ImageDraw.Draw(mask).text((1, 0), text, fill=255, font=font)
    return mask


class ConfusionMatrix(Callback):
    """Log `val/confusion_matrix` of the last validation of a fit, and `test/confusion_matrix`.

    Rows are true classes, columns predicted ones. Validation and test steps have to return `logits` of the real rows.

    Args:
        class_names: Class names in the order of the labels.
    """

    def __init__(self, *, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        has_names = len(class_names) <= MAX_CLASSES_WITH_NAMES
        self._legend = drawable_names(class_names)[1] if has_names else class_names
        # validate_args would wait for the device at every batch.
        self._counts = MulticlassConfusionMatrix(len(class_names), validate_args=False)
        self._has_counts = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts."""
        self._counts.to(pl_module.device).reset()
        self._has_counts = False

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        if not (isinstance(batch, Batch) and isinstance(outputs, Mapping) and "logits" in outputs):
            return
        self._has_counts = True  # on all ranks alike, also on one with nothing but padding
        if batch.num_valid:
            self._counts.update(outputs["logits"], batch.labels[: batch.num_valid])

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last validation."""
        self._log(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the test."""
        self._log(trainer, "test")

    def _log(self, trainer: Trainer, split: str) -> None:
        if not self._has_counts:
            return
        counts = self._counts.compute()  # over all ranks
        self._counts.reset()
        self._has_counts = False
        if trainer.is_global_zero:
            picture = draw_confusion_matrix(counts.cpu().numpy(), self._class_names)
            log_image(trainer, f"{split}/confusion_matrix", picture, self._legend)
