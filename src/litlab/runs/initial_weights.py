"""Weights that a run starts from: the file that `init_from` names, and the copy of it in the run directory.

The copy makes a run independent of its source: a job that waits, a resume and a rerun need nothing but the directory.
"""

import hashlib
import importlib.util
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import hard_link, open_regular, write_atomic
from litlab.runs.terminal import display_path

_SUFFIXES = ".ckpt, .pt, .pth or .safetensors"
_STUDY_FILE = "study.yaml"
_STUDY_FOLDER = ".weights"  # in the directory of a study: a file for each hash, which its jobs link
_MAGIC = (b"PK\x03\x04", b"\x80")  # files of torch.save, since version 1.6 and before


def find_weights(path: str) -> dict[str, str]:
    """Return `path` and `sha256` of the file that `init_from` names.

    Of a run directory this is its best checkpoint if it has one, else its last, as in the final test. All jobs of a
    command get the file as it was for the first of them.

    Raises:
        UserError: If there is no such file, or none that can hold weights.
    """
    try:
        source, sha256 = _find_weights(Path(path).expanduser().absolute())
    except FileNotFoundError as error:
        raise UserError(f"init_from={path}: no such file or run directory") from error
    except OSError as error:
        raise UserError(f"init_from={path}: {error.filename} can't be read: {error.strerror}") from error
    return {"path": str(source), "sha256": sha256}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_weights(run: RunDirectory, config: dict[str, Any], study: Path | None = None) -> None:
    """Copy the weights that a frozen config names into a new run directory.

    Args:
        run: Run directory.
        config: Its frozen config.
        study: Directory of its study, whose jobs share the copy.

    Raises:
        UserError: If the file was changed or removed since the config was frozen.
        OSError: If it can't be copied.
    """
    if not (init := config.get("init_from")):
        return
    source, sha256 = Path(init["path"]), init["sha256"]
    if study is None:
        _copy(source, sha256, run.initial_weights)
        return
    shared = study / _STUDY_FOLDER / sha256
    if not shared.exists():
        shared.parent.mkdir(exist_ok=True)
        _copy(source, sha256, shared)
    hard_link(shared, run.initial_weights)


def is_safetensors(file: BinaryIO) -> bool:
    """Return True for a file in the format of safetensors: the length of a JSON object in eight bytes, then that."""
    start = file.read(9)
    file.seek(0)
    return len(start) == 9 and start[8:] == b"{"


@lru_cache
def _find_weights(path: Path) -> tuple[Path, str]:
    source = _checkpoint_of(path) if path.is_dir() else path
    with open_regular(source) as file:
        _check_format(path, file)
    return source, hash_file(source)


def _checkpoint_of(directory: Path) -> Path:
    run = RunDirectory(directory)
    if (directory / _STUDY_FILE).is_file():
        jobs = sorted(child.name for child in directory.iterdir() if (child / "config.yaml").is_file())
        example = f", such as {jobs[0]}" if jobs else ""
        raise UserError(f"init_from={display_path(directory)}: is a study; name one of its runs{example}")
    if not run.config.is_file():
        raise UserError(
            f"init_from={display_path(directory)}: is no run directory, since it has no config.yaml; expected one, or "
            f"a file with weights ({_SUFFIXES})"
        )
    for checkpoint in (run.best, run.last):
        if checkpoint.is_file():
            return checkpoint
    raise UserError(f"init_from={display_path(directory)}: the run has no checkpoint yet; expected one that has")


def _check_format(path: Path, file: BinaryIO) -> None:
    """Refuse a file that can hold no weights; the worker, which has torch, reads it."""
    if is_safetensors(file):
        if importlib.util.find_spec("safetensors") is None:
            raise UserError(
                f"init_from={display_path(path)}: needs the package safetensors, which is not installed here; "
                "pip install safetensors"
            )
    elif not file.read(4).startswith(_MAGIC):
        raise UserError(
            f"init_from={display_path(path)}: is no file with weights; expected a checkpoint, or a state dict saved by "
            f"torch.save or safetensors ({_SUFFIXES})"
        )


def _copy(source: Path, sha256: str, target: Path) -> None:
    try:
        with source.open("rb") as file:
            write_atomic(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 20))
    except FileNotFoundError as error:
        raise UserError(f"init_from={source}: was removed before it could be copied") from error
    if hash_file(target) != sha256:
        target.unlink()
        raise UserError(f"init_from={source}: was changed before it could be copied; give the command again")
