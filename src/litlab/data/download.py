"""Download of a file of known size and SHA-256."""

import base64
import hashlib
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from litlab.data.arrays import announce
from litlab.errors import UserError
from litlab.runs.redact import mask_addresses

_TIMEOUT_S = 30  # without a byte; a firewall that drops packets would block forever
_READ_BYTES = 2**17


@dataclass(frozen=True)
class Checksum:
    """Name, size and SHA-256 of a distributed file, checked before anything in it is read."""

    name: str
    num_bytes: int
    sha256: str

    def mismatch(self, path: Path) -> str | None:
        """Describe the first difference of a file in size or SHA-256; None if there is none."""
        num_bytes = path.stat().st_size
        if num_bytes != self.num_bytes:
            return f"it has {num_bytes:,} bytes, expected {self.num_bytes:,}"
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return None if sha256 == self.sha256 else f"its SHA-256 is {sha256}, expected {self.sha256}"


def download(url: str, target: Path, expected: Checksum) -> None:
    """Download a file; it gets its name only once size and SHA-256 are right, and nothing unfinished is left behind.

    One request is made, and no more is read than the expected size. A user and password in the url are sent as HTTP
    basic authorization, to its host alone. The caller holds a lock for the target.

    Raises:
        OSError: if the url can't be read.
        UserError: if the content is not the expected one.
    """
    unfinished = target.with_name(f".{target.name}.part")
    address = mask_addresses(url)
    announce(f"Downloading {expected.name} ({expected.num_bytes / 10**6:,.0f} MB) from {address} to {target.parent}")
    try:
        is_complete = _transfer(_request(url), unfinished, expected.num_bytes)
        problem = expected.mismatch(unfinished) if is_complete else f"it has more than {expected.num_bytes:,} bytes"
        if problem:
            raise UserError(f"The file from {address} is not {expected.name}: {problem}. It was deleted")
        unfinished.rename(target)
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response, and holds the connection
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
    """Write the response to a file; False, and no more than one byte too many, if it is longer than expected."""
    columns = (BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
    remaining = num_bytes + 1
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, target.open("wb") as file, progress:
        task = progress.add_task("", total=num_bytes)
        while remaining and (content := response.read(min(remaining, _READ_BYTES))):
            file.write(content)
            remaining -= len(content)
            progress.advance(task, len(content))
    return remaining > 0
