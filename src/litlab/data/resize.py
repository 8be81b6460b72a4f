"""Geometry of resizing images of any size to one size: by squashing, cropping or padding."""

from typing import Literal, NamedTuple

Resize = Literal["squash", "crop", "pad"]


class Box(NamedTuple):
    """Rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def resize_boxes(size: tuple[int, int], target: tuple[int, int], resize: Resize) -> tuple[Box, Box]:
    """Return the part of an image that is used, and the part of the output that it is scaled to.

    Args:
        size: Height and width of the image.
        target: Height and width of the output.
        resize: "squash" to scale height and width by different factors; "crop" to use the largest central part with
            the proportions of the output; "pad" to fit the whole image into the center of the output.
    """
    (height, width), (target_height, target_width) = size, target
    source, output = Box(0, 0, height, width), Box(0, 0, target_height, target_width)
    is_wider = width * target_height > height * target_width  # than the output
    if resize == "crop":
        if is_wider:
            return _centered(source, width=_scaled(height, target_width, target_height)), output
        return _centered(source, height=_scaled(width, target_height, target_width)), output
    if resize == "pad":
        if is_wider:
            return source, _centered(output, height=_scaled(height, target_width, width))
        return source, _centered(output, width=_scaled(width, target_height, height))
    return source, output


def _scaled(length: int, numerator: int, denominator: int) -> int:
    """Scale a length by a fraction, rounded to at least one pixel."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))


def _centered(box: Box, height: int | None = None, width: int | None = None) -> Box:
    """Return the part of this height or width in the center of a box."""
    height, width = height or box.height, width or box.width
    return Box((box.height - height) // 2, (box.width - width) // 2, height, width)
