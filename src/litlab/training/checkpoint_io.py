"""Writing, verifying and finding checkpoints: whole files that know their own checksum, and no code in them.

A checkpoint is a zip archive by `torch.save`, whose comment (a field that the format has) is the SHA-256 of the archive
without it. So it can be verified wherever it is copied to, and there is no second file to fall out of step.
"""

import hashlib
import io
import os
import re
import struct
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_atomic
from litlab.runs.redact import redact

Checkpoint = dict[str, Any]
_NO_COMMENT = struct.pack("<H", 0)  # the last two bytes of a zip archive: the length of its comment
_LABEL = b"sha256:"
_SEAL_SIZE = len(_NO_COMMENT) + len(_LABEL) + 2 * hashlib.sha256().digest_size
_CHUNK = 1 << 20  # bytes
_PATIENCE = 60  # seconds
_REFUSED = re.compile(r"Unsupported \w+: GLOBAL (\S+)")
_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically, sealed, and read as plain tensors and numbers."""

    def save_checkpoint(self, checkpoint: Checkpoint, path: Any, storage_options: Any | None = None) -> None:
        """`storage_options`: a path that the file which is there already is kept at.

        Raises:
            UserError: if the checkpoint holds what could not be read again: a user's class may put anything into it.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        plain = {key: _plain(value) if key in _HYPERPARAMETERS else value for key, value in checkpoint.items()}
        write_atomic(file, lambda stream: _write_sealed(plain, stream), keep=storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Checkpoint:
        if str(path).startswith(("http://", "https://")):
            return _fetch(str(path), map_location)
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = None) -> Checkpoint:
    """Verify a checkpoint and read it with `weights_only=True`: it cannot run code.

    Raises:
        UserError: if it is missing, damaged, or holds more than plain data.
    """
    verify(path)
    return _read(path, str(path), map_location)


def verify(path: Path) -> None:
    """Hold a file against the checksum in it.

    Raises:
        UserError: if it is missing or not as it was written.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            rest = os.fstat(file.fileno()).st_size - _SEAL_SIZE
            while rest > 0 and (chunk := file.read(min(rest, _CHUNK))):
                digest.update(chunk)
                rest -= len(chunk)
            seal = file.read()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    digest.update(_NO_COMMENT)
    if seal != _seal(digest):
        raise UserError(f"{path} is damaged, or not a checkpoint of litlab: its content does not match its checksum")


def newest(run: RunDirectory) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint to continue from, and what is wrong with those that are newer.

    Returns:
        None where the run has not come to its first one yet.

    Raises:
        UserError: if there are checkpoints, but all are damaged.
    """
    problems = []
    for path in (run.last, run.previous):
        if not path.exists():
            continue
        try:
            verify(path)
            _check_readable(path)
        except UserError as error:
            problems.append(str(error))
            continue
        return path, problems
    if problems:
        raise UserError(
            "\n".join(problems) + f"\nso there is nothing to continue {run.path} from; "
            "put a copy of one of them back, or train anew in another directory"
        )
    return None, []


def network_state(path: Path) -> dict[str, torch.Tensor]:
    """The weights of the network alone, as its own `state_dict` names them.

    Raises:
        UserError: as `read_checkpoint`, and if the checkpoint is not of a task with a `network`.
    """
    state = read_checkpoint(path).get("state_dict", {})
    network = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    if not network:
        raise UserError(
            f"{path}: holds no `network.*` weights; only runs of a task that keeps its `network` can be used here"
        )
    return network


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents of a `state_dict`."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, torch.Tensor):
            whole = value.detach().cpu().contiguous()
            digest.update(f"{name}{whole.dtype}{tuple(whole.shape)}".encode())
            digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Hashing:
    """Passes on what is written to it, and hashes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:  # torch makes another error of it
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write_sealed(checkpoint: Checkpoint, file: BinaryIO) -> None:
    hashing = _Hashing(file)
    try:
        torch.save(checkpoint, hashing)  # type: ignore[arg-type]  # it asks for no more than these methods
    except RuntimeError as error:
        raise hashing.failure or error from None
    file.flush()
    try:
        _check_readable(Path(file.name))
    except UserError as error:
        raise UserError(
            f"{error}; look at what `on_save_checkpoint` and `state_dict` of your classes give it"
        ) from error
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(_seal(hashing.digest))


def _check_readable(path: Path) -> None:
    """Read all but the tensors' contents.

    Raises:
        UserError: if `weights_only` refuses something in it.
    """
    try:
        torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its zip reader or its unpickler does
        raise UserError(f"{path.name}: not a checkpoint that can be read safely: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Torch wraps what it found into advice to read the file unsafely."""
    found = _REFUSED.search(str(error))
    return f"it holds {found[1]}" if found else (str(error).splitlines() or [type(error).__name__])[0]


def _seal(digest: "hashlib._Hash") -> bytes:
    comment = _LABEL + digest.hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment


def _plain(value: Any) -> Any:
    """Hyperparameters as plain values; what is none is left out: `weights_only` would refuse the whole checkpoint."""
    if isinstance(value, dict):
        kept = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        return [item for item in map(_plain, value) if item is not _LEFT_OUT]
    if isinstance(value, str):
        return redact(value)
    return value if type(value) in (bool, int, float, str, type(None)) else _LEFT_OUT


_LEFT_OUT = object()


def _fetch(url: str, map_location: Any) -> Checkpoint:
    """Lightning would unpickle what an address gives, and take an older file of the same name for it."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            content = io.BytesIO(answer.read())
    except OSError as error:
        raise UserError(f"{url}: cannot be fetched: {error}") from error
    return _read(content, url, map_location)


def _read(file: Path | io.BytesIO, name: str, map_location: Any) -> Checkpoint:
    try:
        checkpoint = torch.load(file, map_location=map_location or "cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its zip reader or its unpickler does
        raise UserError(f"{name}: not a checkpoint that can be read safely: {_reason(error)}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{name}: not a checkpoint: it holds a {type(checkpoint).__name__}, expected a dict")
    return checkpoint
