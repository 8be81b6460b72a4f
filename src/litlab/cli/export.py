"""Write the trained network as a file for other programs."""

from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path

from litlab.cli.arguments import add_allow, add_run, new_parser
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_atomic

FORMATS = ("onnx", "pt2")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NOTES = """\
The file computes the same as litlab.load(DIR), normalization included:
  input   images         uint8, (batch, channels, height, width), 0 to 255, of the size used in training
  output  probabilities  float32, (batch, classes), each row adds up to 1
The batch size is free. The file holds `class_names` (a JSON list), `input` and `output`: in ONNX as metadata
properties, in pt2 in the extra file litlab.json. It is run before it is put in place (ONNX by onnxruntime), and must
reproduce the probabilities of the network within 1e-5. Transforms of data.transforms.eval are not in the file, since
they can be any code: apply them before. The file names them (`transforms`), and how images of other sizes are resized
before them (`resize` and `resized_to`, as in data.resize).

examples:
  litlab export DIR --format onnx
  litlab export DIR --format pt2 --output network.pt2 --force
"""


def main(arguments: list[str]) -> None:
    """Export the network, check the file and put it in place.

    Raises:
        UserError: If the run has no network to export, the network can't be exported, or the file can't be written.
    """
    options = make_parser().parse_args(arguments)
    output: Path = options.output or RunDirectory.existing(options.run).path / f"network.{options.format}"
    _check_output(output, options.force)
    if options.format == "onnx":
        _check_packages()
    from litlab.inference import export as exporting
    from litlab.inference.predictor import load

    predictor = load(options.run, options.checkpoint, options.allow)
    content = exporting.EXPORTERS[options.format](predictor)
    try:
        write_atomic(output, lambda file: file.write(content))
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror}") from error
    c, h, w = predictor.dataset_info.image_shape
    print(f"{output}: {len(content):,} bytes")
    print(f"  input   images         uint8, batch {c} {h} {w}")
    print(f"  output  probabilities  float32, batch {len(predictor.class_names)}")
    if predictor.preprocess.method != "squash":
        height, width = predictor.preprocess.image_size
        print(
            f"  note    images of other proportions are to be resized to {height}x{width} by data.resize="
            f"{predictor.preprocess.method}, which is not in the file"
        )
    if predictor.transforms:
        print(f"  note    data.transforms.eval is not in the file; apply it before: {predictor.transforms}")


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("export", "Write a run's network with its normalization as a file for other programs.", NOTES)
    add_run(parser)
    add_allow(parser)
    parser.add_argument(
        "--format", choices=FORMATS, required=True, help="onnx, or pt2 (torch.export) for torch.export.load"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: network.onnx or network.pt2 in DIR")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    return parser


def _check_output(output: Path, force: bool) -> None:
    if output.is_dir() or not output.parent.is_dir():
        problem = "is a folder" if output.is_dir() else f"is in {output.parent}, which is not a folder"
        raise UserError(f"--output {output}: {problem}; expected a file name in an existing folder")
    if output.exists() and not force:
        raise UserError(f"{output} exists; add --force to replace it, or choose another file with --output")


def _check_packages() -> None:
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx: missing packages {', '.join(missing)}; install them: pip install 'litlab[onnx]'"
        )
