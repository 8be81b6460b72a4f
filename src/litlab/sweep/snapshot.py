"""Snapshot of a project's sources, which jobs in a queue run although their project is edited meanwhile."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.provenance import SOURCES, list_tracked_files, list_untracked_files

FOLDER = ".sources"  # in the directory of the study; the snapshots in it are named after their contents
MAX_FILE_BYTES = 1 << 20  # enough for code, too little for data
MAX_BYTES = 100 << 20
_SKIPPED_FOLDERS = ("outputs", "node_modules", "__pycache__")


def snapshot_sources(project: Path, folder: Path) -> Path:
    """Copy the sources of a project below a folder, unless an equal copy is there.

    In a git repository these are all tracked files; elsewhere, and of those that are neither tracked nor ignored, files
    with the suffix of a source. Larger files than `MAX_FILE_BYTES`, links and the files of runs are left out.

    Returns:
        The directory of the copy.

    Raises:
        UserError: If they have more than `MAX_BYTES` in all.
        OSError: If they can't be copied.
    """
    files = sorted(_source_files(project))
    contents = hashlib.sha256()
    total = 0
    for name in files:
        content = (project / name).read_bytes()
        total += len(content)
        if total > MAX_BYTES:
            raise UserError(
                f"{project} has more than {MAX_BYTES >> 20} MiB of sources, too much for a snapshot; run the command "
                "in the folder of the project, or set study.snapshot=false: queued jobs then run the code as it is "
                "when they start"
            )
        contents.update(f"{name}\0{len(content)}\0".encode() + content)
    snapshot = folder / FOLDER / contents.hexdigest()[:16]
    if not snapshot.exists():
        temporary = snapshot.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            temporary.mkdir(parents=True)
            for name in files:
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(project / name, target)
            temporary.rename(snapshot)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return snapshot


def record_snapshot(run: RunDirectory, snapshot: Path) -> None:
    """Record in provenance.json that the worker of a run imports the project from a snapshot."""
    relative = os.path.relpath(snapshot, run.path)  # a study may be moved
    provenance = run.read_mapping(run.provenance)
    if provenance.get("snapshot") != relative:
        write_json(run.provenance, provenance | {"snapshot": relative}, sync=False)


def _source_files(project: Path) -> Iterator[str]:
    untracked = [name for name in list_untracked_files(project) if Path(name).suffix in SOURCES]
    for name in (list_tracked_files(project) + untracked) or _walk(project):
        path = project / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_FILE_BYTES:
            yield name


def _walk(project: Path) -> Iterator[str]:
    """Yield the sources of a project without git, without hidden folders and those of runs."""
    for folder, folders, files in os.walk(project):
        if "study.yaml" in files or ".hydra" in folders:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        for name in files:
            if Path(name).suffix in SOURCES:
                yield str(Path(folder, name).relative_to(project))
