"""Signatures of run and study directories, made with a key that only the user can read (docs/SECURITY.md)."""

import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_text

SIGNATURE = ".signature"
_VERSION = "litlab-1"
_KEY = re.compile(r"[0-9a-f]{64}\s*")
_SESSION_KEY = "LITLAB_SESSION_KEY"  # replaces the key file, where none can be kept, for this process and its workers
_STUDY = b"study"  # not JSON, as the project of a run is: the signature of a run is not valid for a study


class _NoKeyError(Exception):
    """The key file can't be used; the message says why."""


def sign(run: RunDirectory, *, next_config: bytes | None = None, sync: bool = True) -> None:
    """Sign config.yaml and the project folder of a run as the user's own.

    Where no key can be kept (no home, read-only), the signature is valid for this process and those that it starts.

    Args:
        run: Run directory.
        next_config: Content that replaces config.yaml next. Both are signed, so that the run is the user's own at any
            time.
        sync: Whether to sync the file to disk; False if the caller syncs the files of many runs at once.

    Raises:
        OSError: If the run directory can't be written.
    """
    configs = [run.config.read_bytes()] + ([] if next_config is None else [next_config])
    _write_signature(run.path, [(config, _project(run)) for config in configs], sync=sync)


def sign_study(directory: Path, *contents: bytes) -> None:
    """Sign a study as the user's own, with the content of study.yaml and, if it is replaced next, the next one.

    Raises:
        OSError: If the directory can't be written.
    """
    _write_signature(directory, [(content, _STUDY) for content in contents], sync=True)


def signature_problem(run: RunDirectory, config: bytes) -> str | None:
    """Return why a run whose config.yaml holds these bytes is untrusted; None if the user signed it."""
    return _problem(run.path, (config, _project(run)), "config.yaml or the project in provenance.json")


def study_signature_problem(directory: Path, content: bytes) -> str | None:
    """Return why a study whose study.yaml holds these bytes is untrusted; None if the user signed it."""
    return _problem(directory, (content, _STUDY), "study.yaml")


def key_file() -> Path:
    """Return the path of the user's key: litlab's folder in the state directory of the XDG specification.

    Raises:
        RuntimeError: If the user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "litlab" / "key"


def _problem(directory: Path, parts: Sequence[bytes], signed: str) -> str | None:
    try:
        lines = (directory / SIGNATURE).read_text(encoding="ascii").splitlines()[:2]
    except FileNotFoundError:
        return "it is not signed"
    except (OSError, ValueError) as error:
        return f"its signature can't be read: {error}"
    try:
        for key in _usable_keys():
            expected = f"{_VERSION} {_digest(key, parts)}"
            if any(hmac.compare_digest(line, expected) for line in lines):
                return None
    except _NoKeyError as error:
        return str(error)
    return f"its signature is not yours, or {signed} changed since it was signed"


def _write_signature(directory: Path, states: Sequence[Sequence[bytes]], *, sync: bool) -> None:
    """Write one line for each state that the directory may be found in."""
    try:
        key = _existing_or_new_key()
    except _NoKeyError:
        key = os.environ.setdefault(_SESSION_KEY, secrets.token_hex(32))
    text = "".join(f"{_VERSION} {_digest(key, parts)}\n" for parts in states)
    write_text(directory / SIGNATURE, text, sync=sync)


def _digest(key: str, parts: Sequence[bytes]) -> str:
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hmac.new(bytes.fromhex(key), _VERSION.encode() + digests, hashlib.sha256).hexdigest()


def _project(run: RunDirectory) -> bytes:
    """Return the project folder in provenance.json, from which the run's classes are imported."""
    try:
        provenance = run.read_mapping(run.provenance)
    except (UserError, OSError):
        provenance = {}
    return json.dumps(provenance.get("project")).encode()


def _usable_keys() -> Iterator[str]:
    if session_key := os.environ.get(_SESSION_KEY):
        yield session_key
    try:
        yield _read_key(key_file())
    except FileNotFoundError:
        raise _NoKeyError(
            f"{socket.gethostname()} has no signing key {key_file()}; if you signed it on another machine, share that "
            "file's folder, or set XDG_STATE_HOME to a shared one on both"
        ) from None
    except (OSError, RuntimeError) as error:
        raise _NoKeyError(f"your key can't be read: {error}") from error


def _existing_or_new_key() -> str:
    """Return the key, creating it if needed; of two processes that create it at once, both get the same."""
    try:
        file = key_file()
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_key(file, secrets.token_hex(32) + "\n")
        return _read_key(file)
    except (OSError, RuntimeError) as error:
        raise _NoKeyError(f"your key can't be kept: {error}") from error


def _write_key(file: Path, text: str) -> None:
    """Create the file atomically, readable for this user only; keep one that another process created meanwhile."""
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
        raise _NoKeyError(f"{file} does not hold a key; remove it, and the next `litlab train` makes a new one")
    if status.st_mode & 0o077:
        raise _NoKeyError(f"others can read your key: chmod 600 {file}")
    return text.strip()
