"""Checkpoint files: written atomically, verified by a checksum, read without running code.

A checkpoint is a zip archive by `torch.save`. Its comment, a field of the format, is the SHA-256 of the archive without
it. So a copy can be verified anywhere, and there is no second file that could get out of step.
"""

import hashlib
import os
import re
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_atomic
from litlab.runs.redact import redact

Checkpoint = dict[str, Any]
_NO_COMMENT = struct.pack("<H", 0)  # the last two bytes of a zip archive: the length of its comment
_LABEL = b"sha256:"
_COMMENT_SIZE = len(_NO_COMMENT) + len(_LABEL) + 2 * hashlib.sha256().digest_size
_CHUNK_SIZE = 1 << 20  # bytes
_UNSUPPORTED = re.compile(r"[Uu]nsupported (?:\w+: )?GLOBAL (\S+)")
_SCALARS = {type(None), bool, int, float, str}
_CONTAINERS = {dict, OrderedDict, list, tuple}
_MAX_BITS = 8 * 250  # torch's reader rejects an integer of more than 255 bytes
_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool}
_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
_OMITTED = object()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically with a checksum and read as plain data."""

    def save_checkpoint(self, checkpoint: Checkpoint, path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically.

        Args:
            checkpoint: Plain data and tensors.
            path: File to write.
            storage_options: Path to which an existing file is moved.

        Raises:
            UserError: If the checkpoint holds something that could not be read again.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        plain = {key: _to_plain(value) if key in _HYPERPARAMETERS else value for key, value in checkpoint.items()}
        write_atomic(file, lambda stream: _write(plain, stream), keep=storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Checkpoint:
        """Read a checkpoint, always with `weights_only=True`."""
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = None) -> Checkpoint:
    """Verify a checkpoint and read it with `weights_only=True`, so that it cannot run code.

    Raises:
        UserError: If it is missing, damaged, or holds more than plain data.
    """
    verify_checkpoint(path)
    checkpoint = load_safely(path, str(path), map_location=map_location or "cpu")
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint: it holds a {type(checkpoint).__name__}, expected a dict")
    return checkpoint


def verify_checkpoint(path: Path) -> None:
    """Compare a file with the checksum in it.

    Raises:
        UserError: If it is missing or not as it was written.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            rest = os.fstat(file.fileno()).st_size - _COMMENT_SIZE
            while rest > 0 and (chunk := file.read(min(rest, _CHUNK_SIZE))):
                digest.update(chunk)
                rest -= len(chunk)
            comment = file.read()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    digest.update(_NO_COMMENT)
    if comment != _checksum_comment(digest):
        raise UserError(f"{path} is damaged, or not a checkpoint of litlab: its content does not match its checksum")


def find_newest_checkpoint(run: RunDirectory) -> tuple[Path | None, list[str]]:
    """Find the newest intact checkpoint of a run.

    Returns:
        Its path, or None if the run has not saved one yet; a message for each newer one that is damaged.

    Raises:
        UserError: If there are checkpoints, but all are damaged.
    """
    problems = []
    for path in (run.last, run.previous):
        if not path.exists():
            continue
        try:
            verify_checkpoint(path)
            _check_safe(path)
        except UserError as error:
            problems.append(str(error))
            continue
        return path, problems
    if problems:
        raise UserError(
            "\n".join(problems) + f"\nso {run.path} has no checkpoint to resume from; "
            "put a copy of one of them back, or train again in another directory"
        )
    return None, []


def read_network_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of the network alone, under the names of its own `state_dict`.

    Raises:
        UserError: As `read_checkpoint`, and if the checkpoint is not of a task with a `network`.
    """
    state = read_checkpoint(path).get("state_dict", {})
    network = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    if not network:
        raise UserError(
            f"{path} holds no `network.*` weights; only runs of a task that keeps its `network` can be used here"
        )
    return network


def hash_weights(state: dict[str, Tensor]) -> str:
    """Compute the SHA-256 of the names, types, shapes and contents of a `state_dict`."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _HashingWriter:
    """File for `torch.save` that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:  # torch replaces it by a RuntimeError
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(checkpoint: Checkpoint, file: BinaryIO) -> None:
    writer = _HashingWriter(file)
    try:
        torch.save(checkpoint, writer)  # type: ignore[arg-type]  # it needs no more than these methods
    except RuntimeError as error:
        raise writer.error or error from None
    file.flush()
    if not _is_plain(checkpoint):
        try:
            _check_safe(Path(file.name))
        except UserError as error:
            raise UserError(
                f"{error}; check what `on_save_checkpoint` and `state_dict` of your classes put into it"
            ) from error
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(_checksum_comment(writer.digest))


def _checksum_comment(digest: "hashlib._Hash") -> bytes:
    comment = _LABEL + digest.hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment


def _is_plain(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint holds only types that `weights_only=True` certainly accepts.

    Where it holds others, reading it back tells, which takes about as long as writing it.
    """
    pending: list[Any] = [checkpoint]
    visited: set[int] = set()
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind in _SCALARS:
            if kind is int and value.bit_length() > _MAX_BITS:
                return False
        elif kind is Tensor or kind is nn.Parameter:
            if value.layout is not torch.strided or value.dtype not in _DTYPES or vars(value):
                return False
        elif kind not in _CONTAINERS:
            return False
        elif id(value) not in visited:
            visited.add(id(value))
            pending += value
            if isinstance(value, dict):  # `_metadata` is an attribute of what `state_dict` returns
                pending += [*value.values(), *getattr(value, "__dict__", {}).values()]
    return True


def _check_safe(path: Path) -> None:
    """Read all but the contents of tensors; raise a UserError for what `weights_only=True` rejects."""
    load_safely(path, path.name, map_location="meta", mmap=True)


def load_safely(path: Path, name: str, **options: Any) -> Any:
    """Read a file of torch.save with `weights_only=True`.

    Args:
        path: Path of the file.
        name: Name of the file in messages.
        **options: Other arguments of `torch.load`.

    Raises:
        UserError: If it is damaged or holds more than plain data.
    """
    try:
        return torch.load(path, weights_only=True, **options)
    except Exception as error:  # torch raises whatever its zip reader or its unpickler does
        rejected = _UNSUPPORTED.search(str(error))  # the rest of torch's message advises to read the file unsafely
        reason = f"it holds {rejected[1]}" if rejected else (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: not a checkpoint that can be read safely: {reason}") from error


def _to_plain(value: Any) -> Any:
    """Reduce hyperparameters to plain values; others are omitted, since `weights_only=True` would reject the file."""
    if isinstance(value, dict):
        items = {str(key): _to_plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not _OMITTED}
    if isinstance(value, list | tuple):
        return [item for item in map(_to_plain, value) if item is not _OMITTED]
    if isinstance(value, str):
        return redact(value)
    return value if type(value) in (bool, int, float, type(None)) else _OMITTED
