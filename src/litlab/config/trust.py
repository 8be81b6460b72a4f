"""How a run or a study is known as one's own: by a signature that only this user can make (docs/SECURITY.md)."""

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_text

SIGNATURE = ".signature"
_FORMAT = "litlab-1"
_KEY = re.compile(r"[0-9a-f]{64}\s*")
# Stands in for the key file where there can be none, for this process and the workers that it starts.
_SESSION_KEY = "LITLAB_SESSION_KEY"
_STUDY = b"study"  # no JSON, as a run's project is: the signature of a run is none of a study


class _NoKey(Exception):
    """Why the key file can't be used."""


def sign(run: RunDirectory, *, coming: bytes | None = None, sync: bool = True) -> None:
    """Mark a run as the user's own: its config.yaml and its project folder as they are now.

    Where no key can be kept (no home, read-only), the mark holds for this process and those that it starts.

    Args:
        run: its directory.
        coming: what will replace config.yaml next; both are signed, so that at no time the run is somebody else's.
        sync: False if the caller syncs the files of many runs at once.

    Raises:
        OSError: if the run directory can't be written.
    """
    configs = [run.config.read_bytes()] + ([] if coming is None else [coming])
    project = _project(run)
    _write_signature(run.path, [(config, project) for config in configs], sync=sync)


def sign_study(directory: Path, *contents: bytes) -> None:
    """Mark a study as the user's own, with its study.yaml as it is and, if that is replaced next, as it will be.

    Raises:
        OSError: if the directory can't be written.
    """
    _write_signature(directory, [(content, _STUDY) for content in contents], sync=True)


def is_own(run: RunDirectory) -> bool:
    """Whether the run, as it is now, was signed with the key of this user."""
    return doubt(run, run.config.read_bytes()) is None


def doubt(run: RunDirectory, config: bytes) -> str | None:
    """Why a run whose config.yaml holds these bytes is not known as the user's own; None if it is."""
    return _doubt(run.path, (config, _project(run)), "config.yaml or the project in provenance.json")


def doubt_study(directory: Path, content: bytes) -> str | None:
    """Why a study whose study.yaml holds these bytes is not known as the user's own; None if it is."""
    return _doubt(directory, (content, _STUDY), "study.yaml")


def _doubt(directory: Path, parts: Sequence[bytes], what: str) -> str | None:
    file = directory / SIGNATURE
    try:
        found = file.read_text(encoding="ascii").splitlines()[:2]
    except FileNotFoundError:
        return "it is not signed"
    except (OSError, ValueError) as error:
        return f"its signature can't be read: {error}"
    try:
        for key in _known_keys():
            expected = f"{_FORMAT} {_digest(key, parts)}"
            if any(hmac.compare_digest(line, expected) for line in found):
                return None
    except _NoKey as error:
        return str(error)
    return f"its signature is not yours, or {what} changed since it was signed"


def key_file() -> Path:
    """The user's key: litlab's folder in the state directory of the XDG base directory specification.

    Raises:
        RuntimeError: if the user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "litlab" / "key"


def _write_signature(directory: Path, signed: Sequence[Sequence[bytes]], *, sync: bool) -> None:
    """One line for each of the states that the directory may be found in."""
    try:
        key = _made_key()
    except _NoKey:
        key = os.environ.setdefault(_SESSION_KEY, secrets.token_hex(32))
    text = "".join(f"{_FORMAT} {_digest(key, parts)}\n" for parts in signed)
    write_text(directory / SIGNATURE, text, sync=sync)


def _digest(key: str, parts: Sequence[bytes]) -> str:
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hmac.new(bytes.fromhex(key), _FORMAT.encode() + digests, hashlib.sha256).hexdigest()


def _project(run: RunDirectory) -> bytes:
    """The project folder that provenance.json names, and that the run's classes are imported from."""
    try:
        known = json.loads(run.provenance.read_bytes())
    except (OSError, ValueError, RecursionError):
        known = None
    return json.dumps(known.get("project") if isinstance(known, dict) else None).encode()


def _known_keys() -> Iterator[str]:
    if session := os.environ.get(_SESSION_KEY):
        yield session
    try:
        yield _read_key(key_file())
    except FileNotFoundError:
        raise _NoKey("there is no key of yours on this machine yet") from None
    except (OSError, RuntimeError) as error:
        raise _NoKey(f"your key can't be read: {error}") from error


def _made_key() -> str:
    """The key of the file, which is made where there is none; of two that make it at once, both get the same."""
    try:
        file = key_file()
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_new(file, secrets.token_hex(32) + "\n")
        return _read_key(file)
    except (OSError, RuntimeError) as error:
        raise _NoKey(f"your key can't be kept: {error}") from error


def _write_new(file: Path, text: str) -> None:
    """Put a file for this user alone in its place, whole, unless there is one by now."""
    temporary = file.with_name(f".key.{os.getpid()}.{secrets.token_hex(3)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
        os.link(temporary, file)
        sync_directory(file.parent)
    except FileExistsError:
        return
    finally:
        os.close(descriptor)
        temporary.unlink()


def _read_key(file: Path) -> str:
    with file.open(encoding="ascii", errors="replace") as stream:
        status = os.fstat(stream.fileno())
        text = stream.read(1024)
    if not stat.S_ISREG(status.st_mode) or not _KEY.fullmatch(text):
        raise _NoKey(f"{file} does not hold a key; remove it, and the next `litlab train` makes a new one")
    if status.st_mode & 0o077:
        raise _NoKey(f"others can read your key: chmod 600 {file}")
    return text.strip()
