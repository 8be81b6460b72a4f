"""`litlab tensorboard`: TensorBoard on a directory of runs, for this machine only."""

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
from litlab.sweep.discover import discover, runs_at
from litlab.sweep.study import STUDY_FILE
from litlab.tensorboard import PREFIX, SESSION_START

if TYPE_CHECKING:
    from litlab.compare.tensorboard_view import View


EVERY = 5.0  # seconds between two looks at a folder of several studies; TensorBoard itself looks as often
_SHARE = 0.05  # of the time that looking may take
_NUM_NAMED = 5
HOST = "127.0.0.1"  # TensorBoard asks nobody for a password
NOTES = """\
It listens on 127.0.0.1 only. From another machine: ssh -L 6006:127.0.0.1:6006 HOST, then open the address there.

Of single runs, and of a folder with several studies, it shows a view: names that read as settings, and one HParams
table with all settings that vary. The view is a temporary directory of links, which is kept up to date and then
removed.

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
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, _leave)
    with _shown(options.directory) as shown:
        address = _serve(shown, options.port)
        print(f"TensorBoard on {options.directory}: {address} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def _leave(number: int, _: object) -> NoReturn:
    """End in a way that removes the view; a second signal does not keep it from that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


@contextmanager
def _shown(directory: Path) -> Iterator[Path]:
    """What TensorBoard is to read: a study as it is; of several and of single runs a view, removed at the end.

    Of a study of before there were sessions a view, too, since that makes up for them; of a single run, since it has
    no columns of its own for the HParams page.

    Raises:
        UserError: if a directory can't be read, or the view can't be made.
    """
    try:
        found = list(islice(discover(directory), 2))
        if len(found) < 2 and all((place / STUDY_FILE).is_file() and _has_sessions(place) for place in found):
            yield directory
            return
        with (
            TemporaryDirectory(prefix="litlab-tensorboard-", ignore_cleanup_errors=True) as place,
            _kept_up_to_date(directory, Path(place)),
        ):
            yield Path(place)
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from error


def _has_sessions(place: Path) -> bool:
    """Whether the runs at a place that logged for TensorBoard told it of themselves."""
    try:
        runs = [found.run.path for found in runs_at(place)]
    except UserError:  # of a damaged study a view could not show more
        return True
    return all((path / SESSION_START).exists() or next(path.glob(f"{PREFIX}*"), None) is None for path in runs)


@contextmanager
def _kept_up_to_date(directory: Path, place: Path) -> Iterator[None]:
    """A view in `place`, at which a thread looks again and again."""
    from litlab.compare.tensorboard_view import View

    view, ended = View(directory, place), threading.Event()
    view.refresh()
    _say_skipped(view)
    thread = threading.Thread(target=_refresh, args=(view, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _refresh(view: "View", ended: threading.Event) -> None:
    """Until it has ended; what goes wrong is said once, since the next look may go well."""
    seconds, said = 0.0, ""
    while not ended.wait(max(EVERY, seconds / _SHARE)):
        began = time.monotonic()
        try:
            view.refresh()
        except (OSError, UserError) as error:
            if str(error) != said:
                said = str(error)
                print(f"litlab: what is shown is not up to date: {said}", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began


def _say_skipped(view: "View") -> None:
    for each in view.skipped[:_NUM_NAMED]:
        print(f"litlab: left out: {printable(f'{each.path}: {each.reason}')}", file=sys.stderr)
    if len(view.skipped) > _NUM_NAMED:
        print(f"litlab: left out: {len(view.skipped) - _NUM_NAMED} more", file=sys.stderr)


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
