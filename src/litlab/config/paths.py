"""Locations of configs, caches and the user's own packages."""

import os
import sys
from pathlib import Path

from litlab.errors import UserError

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
    """Return $LITLAB_CACHE, else litlab's folder in the user's cache directory (XDG base directory specification)."""
    if folder := os.environ.get("LITLAB_CACHE"):
        return Path(folder).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "litlab"


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
