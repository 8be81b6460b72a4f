"""Selection of the listed images that can be decoded, with the bit depth of those of 16 bits."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from litlab.data.image_decoder import MAX_BIT_DEPTH, DecodingReport
from litlab.data.image_listing import ImageListing, OutputRows, Split
from litlab.errors import UserError
from litlab.runs.terminal import printable

_MAX_LISTED = 20  # files in a message


@dataclass(frozen=True)
class ImageSelection:
    """Images of a folder or archive to decode: all of them at first, until a pass over them finds otherwise.

    Attributes:
        root: The folder or archive.
        listing: The images.
        skip_unreadable: Leave out images that can't be decoded instead of refusing them all.
        bit_depth: Bits that 16-bit images use; None for all 16 until one is found.
        skipped: Paths of the images that were left out.
    """

    root: Path
    listing: ImageListing
    skip_unreadable: bool
    bit_depth: int | None
    skipped: tuple[str, ...] = ()

    @property
    def used_depth(self) -> int:
        """Bit depth to decode with."""
        return self.bit_depth or MAX_BIT_DEPTH

    def new_report(self) -> DecodingReport:
        """Return an empty report for a pass over the images, for which those of the training folder are measured."""
        own, _ = self._training_and_validation()
        return DecodingReport(measured=OutputRows((own.paths, own.labels[:, None])))

    def after(self, report: DecodingReport) -> "ImageSelection":
        """Return the selection to decode after a pass over this one: this one itself, if nothing has to change.

        The bit depth is the smallest that holds all values of the training images. It is one for the whole data set, so
        that images can be compared.

        Raises:
            UserError: for images that can't be decoded, naming them, unless they are left out; for a class without
                any other.
        """
        if report.unreadable and not self.skip_unreadable:
            raise UserError(self._refusal(report.unreadable))
        usable = self.without(report.unreadable) if report.unreadable else self
        if usable.bit_depth is None and report.max_value is not None:
            usable = replace(usable, bit_depth=max(8, report.max_value.bit_length()))
        return usable

    def without(self, paths: Collection[str]) -> "ImageSelection":
        """Return a selection that skips images, too; raise a UserError for a class that has no others in a folder."""
        skipped = np.array([path.encode() for path in paths], dtype=bytes)
        own, val, test = (self._remove(part, skipped) for part in (*self._training_and_validation(), self.listing.test))
        train = Split(np.concatenate([own.paths, val.paths]), np.concatenate([own.labels, val.labels]))
        listing = replace(self.listing, train=train, test=test, num_val=len(val.paths))
        return replace(self, listing=listing, skipped=tuple(sorted((*self.skipped, *paths))))

    def _training_and_validation(self) -> tuple[Split, Split]:
        """Return the images of the training folder and those of the validation folder."""
        train, num_own = self.listing.train, len(self.listing.train.paths) - self.listing.num_val
        return Split(train.paths[:num_own], train.labels[:num_own]), Split(
            train.paths[num_own:], train.labels[num_own:]
        )

    def _remove(self, part: Split, skipped: np.ndarray) -> Split:
        is_kept = ~np.isin(part.paths, skipped)
        kept = Split(part.paths[is_kept], part.labels[is_kept])
        if lost := np.setdiff1d(part.labels, kept.labels).tolist():
            path, class_name = part.paths[part.labels == lost[0]][0].decode(), self.listing.class_names[lost[0]]
            others = f"all other images of {class_name} in its split"
            raise UserError(f"{self.root}: {path} and {others} can't be decoded: replace them")
        return kept

    def _refusal(self, unreadable: dict[str, str]) -> str:
        num_images = len(self.listing.train.paths) + len(self.listing.test.paths)
        lines = [printable(f"  {path} {unreadable[path]}") for path in sorted(unreadable)[:_MAX_LISTED]]
        if len(unreadable) > _MAX_LISTED:
            lines.append(f"  and {len(unreadable) - _MAX_LISTED:,} more")
        return "\n".join(
            [
                f"{self.root}: {len(unreadable):,} of {num_images:,} images can't be used:",
                *lines,
                "Replace or remove them, or set data.skip_unreadable=true to leave them out",
            ]
        )
