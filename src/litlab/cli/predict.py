"""Print classes and probabilities for image files."""

import csv
import itertools
import json
import os
import sys
import warnings
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.cli.arguments import add_allow, add_run, new_parser
from litlab.errors import UserError

if TYPE_CHECKING:
    from litlab.inference.predictor import Predictor


Row = tuple[str, int, str, float]  # file, rank from 1, class, probability
COLUMNS = ("file", "rank", "class", "probability")
BATCH_SIZE = 128  # files in memory at once
NOTES = """\
A folder stands for all JPEG, PNG and WebP files in it and its subfolders. A file that can't be read is reported, the
others are predicted, and the exit code is 1. Probabilities equal those of litlab.load(DIR); 0 to 1 in csv and json.

examples:
  litlab predict DIR --images photo.jpg
  litlab predict DIR --images photos/ more/cat.png --top 3 --format csv > predictions.csv
"""


def main(arguments: list[str]) -> None:
    """Predict and print file by file.

    Raises:
        UserError: If there is no such run, no image, or (at the end) if files could not be read.
    """
    options = make_parser().parse_args(arguments)
    files = image_files(options.images)
    if not files:
        raise UserError(f"{', '.join(map(str, options.images))}: no JPEG, PNG or WebP files")
    from litlab.inference.predictor import load

    predictor = load(options.run, options.checkpoint, options.allow)
    unreadable: list[str] = []

    def skip(error: UserError) -> None:
        unreadable.append(str(error))
        print(f"litlab: {error}", file=sys.stderr)

    _WRITERS[options.format](predictions(predictor, files, options.top, skip), predictor.class_names)
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(files)} files could not be read, see above")


def image_files(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the image files of given folders in order, without hidden ones and thumbnails."""
    from litlab.data.image_listing import SUFFIXES, is_ignored

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not is_ignored(name))
            images = (name for name in sorted(names) if not is_ignored(name))
            files += [Path(folder, name) for name in images if name.lower().endswith(SUFFIXES)]
    return files


def predictions(
    predictor: "Predictor", files: Iterable[Path], top: int, skip: Callable[[UserError], None]
) -> Iterator[Row]:
    """Yield the `top` most probable classes of each file in order; call `skip` for a file that can't be read."""
    remaining = iter(files)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        readable = []
        for file in batch:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of Pillow about odd metadata
                    readable.append((str(file), predictor.pixels(file)))
            except UserError as error:
                skip(error)
        best = predictor([pixels for _, pixels in readable]).topk(min(top, len(predictor.class_names)), dim=1)
        for (name, _), values, classes in zip(readable, best.values.tolist(), best.indices.tolist(), strict=True):
            for rank, (value, number) in enumerate(zip(values, classes, strict=True), start=1):
                yield name, rank, predictor.class_names[number], value


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("predict", "Print classes and probabilities of images by a run's network.", NOTES)
    add_run(parser)
    add_allow(parser)
    parser.add_argument("--images", nargs="+", type=Path, required=True, metavar="PATH", help="image files or folders")
    parser.add_argument(
        "--top", type=_count, default=1, metavar="N", help="classes of each image, most probable first; default: 1"
    )
    parser.add_argument("--format", choices=tuple(_WRITERS), default="table", help="default: table")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def _write_table(rows: Iterable[Row], class_names: tuple[str, ...]) -> None:
    width = max(map(len, class_names))
    for file, _, name, probability in rows:
        print(f"{100 * probability:6.2f} %  {name:<{width}}  {file}")


def _write_csv(rows: Iterable[Row], class_names: tuple[str, ...]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)


def _write_json(rows: Iterable[Row], class_names: tuple[str, ...]) -> None:
    """Write one array with an object a line as rows come, so that a million images need no memory."""
    separator = "[\n"
    for row in rows:
        print(separator + json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False), end="")
        separator = ",\n"
    print("\n]" if separator != "[\n" else "[]")


_WRITERS = {"table": _write_table, "csv": _write_csv, "json": _write_json}
