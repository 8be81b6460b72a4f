"""`litlab tensorboard`: TensorBoard on a directory of runs, for this machine only."""

import io
import threading
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path

from litlab.commands import new_parser
from litlab.errors import UserError

HOST = "127.0.0.1"  # TensorBoard asks nobody for a password
NOTES = """\
It listens on 127.0.0.1 only. From another machine: ssh -L 6006:127.0.0.1:6006 HOST, then open the address there.

examples:
  litlab tensorboard
  litlab tensorboard outputs/cifar10_cnn --port 6007
"""


def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: if the directory has nothing to show, or the port is taken.
    """
    parser = new_parser("tensorboard", "TensorBoard on a directory of runs, or on one run.", NOTES)
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", type=Path, default=Path("outputs"), help="default: outputs"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 6006")
    options = parser.parse_args(arguments)
    _check(options.directory)
    address = _serve(options.directory, options.port)
    print(f"TensorBoard on {options.directory}: {address} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def _check(directory: Path) -> None:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; name one with runs, or train first: litlab train")
    if next(directory.rglob("events.out.tfevents.*"), None) is None:
        raise UserError(f"{directory} holds no TensorBoard events (events.out.tfevents.*); train first: litlab train")


def _serve(directory: Path, port: int | None) -> str:
    """Start it in a thread; the process that reads event files for it ends with this one. Returns the address."""
    program = import_module("tensorboard.program")  # it has no types
    with redirect_stderr(io.StringIO()):  # advice about TensorBoard's own options
        server = program.TensorBoard()
        server.configure(logdir=str(directory), host=HOST, port=port)
        try:
            address: str = server.launch()
        except program.TensorBoardServerException as error:
            raise UserError(f"TensorBoard did not start: {error.msg}") from error
    return address
