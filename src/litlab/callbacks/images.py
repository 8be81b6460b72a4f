"""Pictures for TensorBoard: augmented training images, and the misclassified test images with the highest loss."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litlab.data.loader import Batch
from litlab.fonts import dejavu_sans, find_font

TILE_SIZE = 112  # pixels; small images are enlarged to about this size, large ones reduced
GAP = 10
FONT_SIZE = 12
LINE_HEIGHT = 16
ELLIPSIS = "…"
CAPTION_CHARACTERS = "is 0123456789%" + ELLIPSIS
INK, PAPER = (40, 40, 40), (255, 255, 255)


def log_image(trainer: Trainer, tag: str, picture: NDArray[np.uint8], legend: Sequence[str] = ()) -> None:
    """Log a picture to the loggers of TensorBoard and to those with a method `log_picture`, on rank zero.

    Args:
        trainer: Trainer with any loggers; others are skipped.
        tag: Name of the picture, such as `test/confusion_matrix`.
        picture: Shape `h w 3`.
        legend: Class names that the picture shows as numbers, to be logged as a text beside it.
    """
    lines = [f"{number}  {name}\n" for number, name in enumerate(legend)]
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, trainer.global_step, dataformats="HWC")
            if lines:
                text = "".join(f"    {line}" for line in lines)  # code in Markdown
                logger.experiment.add_text(f"{tag}/classes", text, trainer.global_step)
        elif log_picture := getattr(logger, "log_picture", None):
            log_picture(tag, picture, trainer.global_step, "".join(lines))


def drawable_names(class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Choose the names of classes in pictures: their own, on one line each, or numbers if no font has the characters.

    Returns:
        Names, and the class names for a legend if the names are numbers.
    """
    names = [" ".join(name.split()) for name in class_names]
    if find_font("".join(names) + CAPTION_CHARACTERS) is not None:
        return names, []
    return [f"class {number}" for number in range(len(names))], names


def to_pixels(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Undo the normalization of images.

    Args:
        images: Float `b c h w`.
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Returns:
        Pixels, `b h w 3`: gray for a single channel, else the first three channels.
    """
    shape = (1, -1, 1, 1)
    images = images.float().cpu()
    pixels = images * images.new_tensor(std).view(shape) + images.new_tensor(mean).view(shape)
    pixels = (pixels.clamp(0, 1) * 255).round().byte()
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
    return array


def contact_sheet(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Draw images in a nearly square grid, each with its caption below.

    Args:
        images: Shape `b h w 3`.
        captions: Caption of each image; lines are split at newlines.

    Returns:
        Picture, `h w 3`.
    """
    num_columns = math.ceil(math.sqrt(len(images)))
    num_rows = math.ceil(len(images) / num_columns)
    num_lines = max(caption.count("\n") + 1 for caption in captions)
    tiles = [_tile(image) for image in images]
    width, height = tiles[0].width + GAP, tiles[0].height + GAP + num_lines * LINE_HEIGHT
    sheet = Image.new("RGB", (GAP + num_columns * width, GAP + num_rows * height), PAPER)
    draw, font = ImageDraw.Draw(sheet), get_font(FONT_SIZE, "".join(captions) + ELLIPSIS)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = GAP + number % num_columns * width, GAP + number // num_columns * height
        sheet.paste(tile, (left, top))
        for line_number, line in enumerate(caption.split("\n")):
            position = (left, top + tile.height + line_number * LINE_HEIGHT + 1)
            draw.text(position, truncate(line, tile.width, font), fill=INK, font=font)
    return np.asarray(sheet)


def _tile(image: NDArray[np.uint8]) -> Image.Image:
    height, width = image.shape[:2]
    scale = TILE_SIZE / max(height, width)
    scale = max(round(scale), 1) if scale > 1 else scale  # whole factors keep the pixels square
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((round(width * scale), round(height * scale)), resample)


def truncate(line: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Truncate a line to a width in pixels, with an ellipsis."""
    if font.getlength(line) <= width:
        return line
    lengths = range(len(line))
    length = bisect_right(lengths, width, key=lambda end: math.ceil(font.getlength(line[:end] + ELLIPSIS))) - 1
    return line[: max(length, 0)].rstrip() + ELLIPSIS


@cache
def get_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Load a font for a text: DejaVu Sans, unless another is needed and installed; the size is in pixels."""
    return ImageFont.truetype(find_font(text) or dejavu_sans(), size)


class CaptionedImages(Callback):
    """Log images with captions as one picture.

    Args:
        num_images: Largest number of images.
        class_names: Class names in the order of the labels.
        mean: Mean of each channel in the normalization, which is undone.
        std: Standard deviation of each channel in the normalization.
    """

    def __init__(
        self, *, num_images: int, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._num_images = num_images
        self._names, self._legend = drawable_names(class_names)
        self._mean = mean
        self._std = std

    def _log(self, trainer: Trainer, tag: str, images: Tensor, captions: Sequence[str]) -> None:
        picture = contact_sheet(to_pixels(images, mean=self._mean, std=self._std), captions)
        log_image(trainer, tag, picture, self._legend)


class TrainingImages(CaptionedImages):
    """Log the first images of the first training batch as `train/images`: augmented, as the network gets them."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Log the picture at the first step."""
        if batch_idx or trainer.global_step or not trainer.is_global_zero or not isinstance(batch, Batch):
            return
        num_images = min(self._num_images, batch.num_valid)
        captions = [self._names[label] for label in batch.labels[:num_images].tolist()]
        self._log(trainer, "train/images", batch.images[:num_images], captions)


class WorstMistakes(CaptionedImages):
    """Log the misclassified test images with the highest loss as `test/worst_mistakes`, the highest first.

    A caption has the predicted class and its probability, then the true class. The images are the worst of all ranks;
    without mistakes there is no picture. Test steps have to return `logits` and `losses` of the real rows.
    """

    _worst: dict[str, Tensor] | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self._worst = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the worst of the images so far."""
        if not (isinstance(batch, Batch) and isinstance(outputs, Mapping) and {"logits", "losses"} <= outputs.keys()):
            return
        probabilities, predicted = outputs["logits"].softmax(dim=1).max(dim=1)
        labels = batch.labels[: batch.num_valid]
        candidates = {
            "losses": torch.where(predicted != labels, outputs["losses"], -torch.inf),
            "labels": labels,
            "predicted": predicted,
            "probabilities": probabilities,
            "images": batch.images[: batch.num_valid],
        }
        if self._worst is None:  # always num_images rows, so that ranks can gather
            self._worst = {
                name: value.new_full((self._num_images, *value.shape[1:]), -torch.inf if name == "losses" else -1)
                for name, value in candidates.items()
            }
        self._worst = self._highest({name: torch.cat([self._worst[name], candidates[name]]) for name in candidates})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the picture."""
        if self._worst is None:
            return
        worst = self._highest({name: _gather(pl_module, value) for name, value in self._worst.items()})
        self._worst = None
        num_mistakes = int((worst["losses"] > -torch.inf).sum())
        if num_mistakes and trainer.is_global_zero:
            rows = [worst[name][:num_mistakes].tolist() for name in ("predicted", "probabilities", "labels")]
            captions = [
                f"{self._names[predicted]} {100 * probability:.0f} %\nis {self._names[label]}"
                for predicted, probability, label in zip(*rows, strict=True)
            ]
            self._log(trainer, "test/worst_mistakes", worst["images"][:num_mistakes], captions)

    def _highest(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        indices = rows["losses"].topk(self._num_images).indices
        return {name: value[indices] for name, value in rows.items()}


def _gather(pl_module: LightningModule, rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks; every rank has equally many."""
    gathered = pl_module.all_gather(rows)
    assert isinstance(gathered, Tensor)
    return gathered.reshape(-1, *rows.shape[1:])
