"""Start TensorBoard on a directory of runs, on loopback only."""

import base64
import io
import json
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.runs.terminal import printable
from litlab.sweep.discover import discover
from litlab.sweep.study import STUDY_FILE

if TYPE_CHECKING:
    from litlab.compare.tensorboard_view import View

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # of WSGI
INTERVAL = 5.0  # seconds between two refreshes of a view; TensorBoard reloads as often
_MAX_LOAD = 0.05  # fraction of the time that refreshing may take
_MAX_REPORTED = 5
HOST = "127.0.0.1"  # TensorBoard has no authentication
NEWEST = "newest"  # query of the first page with the newest runs ticked
_MAX_STARTS = 5
MAX_TICKED = 40  # runs; with more, the pages of images and margin charts tick none
NOTES = """\
TensorBoard listens on 127.0.0.1 only. From another machine: ssh -L 6006:127.0.0.1:6006 HOST, then open the address
there.

Single runs and folders of several studies are shown as a view: run names made of settings, and one HParams table with
all settings that vary. The view is a temporary directory of links that is kept up to date and removed at the end.

TensorBoard ticks no run if there are more than 40, on some pages 500. With more than 40, its first page is
opened with the means of studies and the newest runs ticked. Of more than 500, the oldest are left out.

examples:
  litlab tensorboard
  litlab tensorboard outputs/cifar10_cnn --port 6007
"""


def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: If the directory has no events, or the port is in use.
    """
    options = make_parser().parse_args(arguments)
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


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("tensorboard", "Start TensorBoard on a directory of runs, or on one run.", NOTES)
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", type=Path, default=Path("outputs"), help="default: outputs"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 6006")
    return parser


def _exit(number: int, _: object) -> NoReturn:
    """Exit so that the view is removed, ignoring further signals."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


@contextmanager
def _logdir(directory: Path) -> Iterator[Path]:
    """Provide the directory that TensorBoard reads: a single study itself, else a temporary view.

    A single run gets a view because it has no columns of its own for the HParams page; a study of many runs, because
    TensorBoard would tick none of them.

    Raises:
        UserError: If a directory can't be read, or the view can't be created.
    """
    from litlab.compare.tensorboard_view import MAX_RUNS, newest_runs

    try:
        paths = list(islice(discover(directory), 2))
        is_study = len(paths) < 2 and all((path / STUDY_FILE).is_file() for path in paths)
        if is_study and len(newest_runs(directory)) <= MAX_RUNS:
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
    from litlab.compare.tensorboard_view import MAX_RUNS, View

    view, ended = View(directory, folder), threading.Event()
    view.refresh()
    _report_skipped(view)
    if view.num_left_out:
        print(
            f"litlab: TensorBoard ticks no run if there are more than {MAX_RUNS}, so the oldest {view.num_left_out:,} "
            f"are left out; name a folder in {directory} to see them, or use `tensorboard --logdir {directory}`",
            file=sys.stderr,
        )
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


def _with_newest(application: Application, directory: Path) -> Application:
    """Open TensorBoard's first page with the newest runs ticked on all pages, where it would tick none on some."""
    from litlab.compare.tensorboard_view import newest_runs

    def serve(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (
            environment["PATH_INFO"] != "/"
            or environment.get("QUERY_STRING")
            or len(newest_runs(directory)) <= MAX_TICKED
        ):
            return application(environment, start_response)
        # TensorBoard can't store which runs are ticked if a name is not in Latin-1.
        runs = [run for run in newest_runs(directory) if max(map(ord, run)) < 256]
        state = quote(base64.b64encode(json.dumps(dict.fromkeys(runs[:MAX_TICKED], True)).encode()))
        start_response("302 Found", [("Location", f"/?{NEWEST}#timeseries&runSelectionState={state}")])
        return []

    return serve


def _serve(directory: Path, port: int | None) -> str:
    """Start TensorBoard in a thread and return its address."""
    program = import_module("tensorboard.program")  # it has no types
    # It would sort the columns by name, which are in the order of their importance.
    columns = vars(import_module("tensorboard.plugins.hparams.backend_context"))
    columns["_sort_and_reduce_to_hparams_limit"] = lambda *arguments: None

    def make_server(application: Application, flags: Any) -> Any:
        return program.create_port_scanning_werkzeug_server(_with_newest(application, directory), flags)

    with redirect_stderr(io.StringIO()):  # advice about TensorBoard's own options
        for _ in range(_MAX_STARTS):
            server = program.TensorBoard(server_class=make_server)
            server.configure(logdir=str(directory), host=HOST, port=port)
            try:
                return str(server.launch())
            except program.TensorBoardServerException as error:
                raise UserError(f"TensorBoard did not start: {error.msg}") from error
            except SystemExit:  # of its server, if another one took the same free port at this moment
                continue
    raise UserError("TensorBoard did not start: its port was taken at the same moment; run the command again")
