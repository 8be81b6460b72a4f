"""Start TensorBoard on a directory of runs, on loopback only."""

import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.runs.terminal import printable
from litlab.sweep.discover import discover
from litlab.sweep.study import STUDY_FILE

if TYPE_CHECKING:
    from litlab.compare.tensorboard_view import View


INTERVAL = 5.0  # seconds between two refreshes of a view; TensorBoard reloads as often
_MAX_LOAD = 0.05  # fraction of the time that refreshing may take
_MAX_REPORTED = 5
HOST = "127.0.0.1"  # TensorBoard has no authentication
NOTES = """\
TensorBoard listens on 127.0.0.1 only. From another machine: ssh -L 6006:127.0.0.1:6006 HOST, then open the address
there.

Single runs and folders of several studies are shown as a view: run names made of settings, and one HParams table with
all settings that vary. The view is a temporary directory of links that is kept up to date and removed at the end.

examples:
  litlab tensorboard
  litlab tensorboard outputs/cifar10_cnn --port 6007
"""


def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: If the directory has no events, or the port is in use.
    """
    parser = new_parser("tensorboard", "Start TensorBoard on a directory of runs, or on one run.", NOTES)
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", type=Path, default=Path("outputs"), help="default: outputs"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 6006")
    options = parser.parse_args(arguments)
    _check_directory(options.directory)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, _exit)
    with _logdir(options.directory) as logdir:
        address = _serve(logdir, options.port)
        print(f"TensorBoard on {options.directory}: {address} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def _exit(number: int, _: object) -> NoReturn:
    """Exit so that the view is removed, ignoring further signals."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


@contextmanager
def _logdir(directory: Path) -> Iterator[Path]:
    """Provide the directory that TensorBoard reads: a single study itself, else a temporary view.

    A single run gets a view because it has no columns of its own for the HParams page.

    Raises:
        UserError: If a directory can't be read, or the view can't be created.
    """
    try:
        paths = list(islice(discover(directory), 2))
        if len(paths) < 2 and all((path / STUDY_FILE).is_file() for path in paths):
            yield directory
            return
        with (
            TemporaryDirectory(prefix="litlab-tensorboard-", ignore_cleanup_errors=True) as folder,
            _updated_view(directory, Path(folder)),
        ):
            yield Path(folder)
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from error


@contextmanager
def _updated_view(directory: Path, folder: Path) -> Iterator[None]:
    """Create a view in `folder` and refresh it in a thread."""
    from litlab.compare.tensorboard_view import View

    view, ended = View(directory, folder), threading.Event()
    view.refresh()
    _report_skipped(view)
    thread = threading.Thread(target=_refresh_until, args=(view, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _refresh_until(view: "View", ended: threading.Event) -> None:
    """Refresh the view until `ended`; report an error once, since the next refresh may succeed."""
    seconds, reported = 0.0, ""
    while not ended.wait(max(INTERVAL, seconds / _MAX_LOAD)):
        began = time.monotonic()
        try:
            view.refresh()
        except (OSError, UserError) as error:
            if str(error) != reported:
                reported = str(error)
                print(f"litlab: the view is not up to date: {reported}", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began


def _report_skipped(view: "View") -> None:
    for skipped in view.skipped[:_MAX_REPORTED]:
        print(f"litlab: left out: {printable(f'{skipped.path}: {skipped.reason}')}", file=sys.stderr)
    if len(view.skipped) > _MAX_REPORTED:
        print(f"litlab: left out: {len(view.skipped) - _MAX_REPORTED} more", file=sys.stderr)


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; name one with runs, or train first: litlab train")
    if next(directory.rglob("events.out.tfevents.*"), None) is None:
        raise UserError(f"{directory} holds no TensorBoard events (events.out.tfevents.*); train first: litlab train")


def _serve(directory: Path, port: int | None) -> str:
    """Start TensorBoard in a thread and return its address."""
    program = import_module("tensorboard.program")  # it has no types
    with redirect_stderr(io.StringIO()):  # advice about TensorBoard's own options
        server = program.TensorBoard()
        server.configure(logdir=str(directory), host=HOST, port=port)
        try:
            address: str = server.launch()
        except program.TensorBoardServerException as error:
            raise UserError(f"TensorBoard did not start: {error.msg}") from error
    return address
