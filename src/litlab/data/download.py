"""Fetching a file whose checksum is known."""

import contextlib
import io
import socket
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from litlab.data.announce import announce
from litlab.data.cifar10_files import FileFacts, mismatch
from litlab.errors import UserError

_STALLED_AFTER_S = 30  # without a byte; a firewall that drops packets would keep us waiting for good


def fetch_verified(url: str, target: Path, expected: FileFacts) -> None:
    """Downloads to a name of its own next to the target, which it gets only once size and SHA-256 are right.

    One request. The caller holds a lock for the target. However it ends, nothing unfinished stays behind.
    Raises OSError where the url can't be read, UserError where it gives something else than expected.
    """
    # torchvision takes a second to import, and only a first start comes here. Its public download_url asks every
    # server twice, and asks again without encryption when https fails; the transfer below it does neither.
    from torchvision.datasets.utils import _urlretrieve  # type: ignore[import-untyped]

    unfinished = target.with_name(f".{target.name}.part")
    announce(f"Fetching {expected.name} ({expected.num_bytes / 10**6:,.0f} MB) from {url} to {target.parent}")
    try:
        with _patience(), _progress_only_on_a_terminal():
            _urlretrieve(url, str(unfinished))
        if problem := mismatch(unfinished, expected):
            raise UserError(f"{url} gave something else than {expected.name}: {problem}. Nothing of it was kept")
        unfinished.rename(target)
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, and holds the connection
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _progress_only_on_a_terminal() -> contextlib.AbstractContextManager[object]:
    """Of the transfer's own bar, with percentage and remaining time."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_AFTER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
