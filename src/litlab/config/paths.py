"""Locations of configs, caches and the user's own packages."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from litlab.errors import UserError
from litlab.runs.files import check_private

ROOT = "config"  # conf/config.yaml
VERSION_BASE = "1.3"  # of Hydra's behavior


def packaged_conf() -> Path:
    """Return litlab's own `conf/`: inside the wheel, or beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def project_conf(project: Path) -> Path | None:
    """Return the `conf/` of the user's own project, if there is one that isn't litlab's."""
    conf = project / "conf"
    return conf.resolve() if conf.is_dir() and conf.resolve() != packaged_conf() else None


def cache_root() -> Path:
    """Return $LITLAB_CACHE, else litlab's folder in the user's cache directory (XDG base directory specification).

    Without a home that can be written, it is a folder of this user in the temporary directory.

    Raises:
        UserError: If that folder is not this user's alone.
    """
    if folder := os.environ.get("LITLAB_CACHE"):
        return Path(folder).expanduser().absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser().absolute() / "litlab"
    # No HOME, and no entry in the list of users; or the HOME of another user.
    with suppress(RuntimeError, PermissionError):
        cache = Path.home().absolute() / ".cache" / "litlab"
        existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
        if existing == cache or os.access(existing, os.W_OK):
            return cache
    return _temporary_cache()


def _temporary_cache() -> Path:
    """Return a folder for a user without a home, as in a container whose user id has no name."""
    folder = Path(gettempdir(), f"litlab-cache-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}; this user has no home, so set LITLAB_CACHE to a folder for the image cache"
        ) from error
    return folder


def add_project_to_path(project: Path | None = None) -> None:
    """Make the packages in the user's project and its `src/` importable.

    Args:
        project: Folder of the project; by default the current one.
    """
    project = project or Path.cwd()
    for folder in (project, project / "src"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def prefer_snapshot(snapshot: Path) -> None:
    """Import packages of a project from a copy of it, also where the project is installed in editable mode.

    Raises:
        UserError: If the copy is missing.
    """
    if not snapshot.is_dir():
        raise UserError(
            f"{snapshot}, the copy of the sources that this run was submitted with, is missing; to use the present "
            "ones, remove the key `snapshot` from its provenance.json"
        )
    # Before installed packages, so that it comes first, and after Python's own, which no file of a project replaces.
    position = next((i for i, path in enumerate(sys.path) if "-packages" in path), len(sys.path))
    folders = [str(folder) for folder in (snapshot, snapshot / "src") if folder.is_dir()]
    sys.path[position:position] = [folder for folder in folders if folder not in sys.path]
