"""Pictures as arrays, and the way to those loggers that show them."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE_SIZE = 112  # pixels on the screen: small images are enlarged to about this, large ones reduced
GAP = 10
FONT_SIZE = 12
LINE_HEIGHT = 16
INK, PAPER = (40, 40, 40), (255, 255, 255)


def show(trainer: Trainer, tag: str, picture: NDArray[np.uint8]) -> None:
    """Sends a picture, `h w 3`, to the TensorBoard loggers; other loggers are left alone. For rank zero."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, trainer.global_step, dataformats="HWC")


def to_pixels(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Undoes the normalisation: float `b c h w` to uint8 `b h w 3`.

    One channel is shown as grey, of others the first three.
    """
    shape = (1, -1, 1, 1)
    images = images.float().cpu()
    pixels = images * images.new_tensor(std).view(shape) + images.new_tensor(mean).view(shape)
    pixels = (pixels.clamp(0, 1) * 255).round().byte()
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
    return array


def contact_sheet(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Images, `b h w 3`, in a nearly square grid, each with its caption below; lines are split at newlines."""
    num_columns = math.ceil(math.sqrt(len(images)))
    num_rows = math.ceil(len(images) / num_columns)
    num_lines = max(caption.count("\n") + 1 for caption in captions)
    tiles = [_tile(image) for image in images]
    width, height = tiles[0].width + GAP, tiles[0].height + GAP + num_lines * LINE_HEIGHT
    sheet = Image.new("RGB", (GAP + num_columns * width, GAP + num_rows * height), PAPER)
    draw, font = ImageDraw.Draw(sheet), get_font(FONT_SIZE)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = GAP + number % num_columns * width, GAP + number // num_columns * height
        sheet.paste(tile, (left, top))
        for line_number, line in enumerate(caption.split("\n")):
            position = (left, top + tile.height + line_number * LINE_HEIGHT + 1)
            draw.text(position, shortened(line, tile.width, font), fill=INK, font=font)
    return np.asarray(sheet)


def _tile(image: NDArray[np.uint8]) -> Image.Image:
    height, width = image.shape[:2]
    scale = TILE_SIZE / max(height, width)
    scale = max(round(scale), 1) if scale > 1 else scale  # whole factors keep the pixels square
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((round(width * scale), round(height * scale)), resample)


def shortened(line: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """As much of a line as fits a width in pixels."""
    if font.getlength(line) <= width:
        return line
    lengths = range(len(line))
    length = bisect_right(lengths, width, key=lambda end: math.ceil(font.getlength(line[:end] + "…"))) - 1
    return line[: max(length, 0)].rstrip() + "…"


@cache
def get_font(size: int) -> ImageFont.FreeTypeFont:
    """A font that knows Latin, Greek, Cyrillic, Hebrew and Arabic letters; the size is in pixels."""
    import matplotlib  # only where something is drawn: it takes a while

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
