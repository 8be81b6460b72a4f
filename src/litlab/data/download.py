"""Fetching a file whose checksum is known."""

import base64
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from litlab.data.cache import announce
from litlab.data.cifar10_files import FileFacts, mismatch
from litlab.errors import UserError
from litlab.runs.redact import mask_addresses

_STALLED_AFTER_S = 30  # without a byte; a firewall that drops packets would keep us waiting for good
_PORTION = 2**17


def fetch_verified(url: str, target: Path, expected: FileFacts) -> None:
    """Downloads to a name of its own next to the target, which it gets only once size and SHA-256 are right.

    One request; nothing is taken beyond the expected size. A user and password in the url are sent as HTTP's basic
    authorization, to its host alone. The caller holds a lock for the
    target. However it ends, nothing unfinished stays behind.
    Raises OSError where the url can't be read, UserError where it gives something else than expected.
    """
    unfinished = target.with_name(f".{target.name}.part")
    shown = mask_addresses(url)
    announce(f"Fetching {expected.name} ({expected.num_bytes / 10**6:,.0f} MB) from {shown} to {target.parent}")
    try:
        with _patience():
            ended = _transfer(_request(url), unfinished, expected.num_bytes)
        problem = mismatch(unfinished, expected) if ended else f"it has more than {expected.num_bytes:,} bytes"
        if problem:
            raise UserError(f"{shown} gave something else than {expected.name}: {problem}. Nothing of it was kept")
        unfinished.rename(target)
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, and holds the connection
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _request(url: str) -> urllib.request.Request:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)) if at else url)
    request.add_header("User-Agent", "litlab")
    if at:
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(unquote(user).encode()).decode())
    return request


def _transfer(request: urllib.request.Request, target: Path, num_bytes: int) -> bool:
    """Whether the answer ended in time: a server that sends without end must not fill the disk."""
    columns = (BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
    left = num_bytes + 1
    with urllib.request.urlopen(request) as answer, target.open("wb") as file, bar:
        task = bar.add_task("", total=num_bytes)
        while left and (content := answer.read(min(left, _PORTION))):
            file.write(content)
            left -= len(content)
            bar.advance(task, len(content))
    return left > 0


@contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_AFTER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
