"""Where configs and caches are."""

import os
import sys
from pathlib import Path

PROJECT_CONF = "conf"


def packaged_conf() -> Path:
    """litlab's own configs: inside the wheel, or beside `src/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def project_conf(project: Path) -> Path | None:
    """The `conf/` of the user's own project, if there is one that isn't litlab's."""
    own = project / PROJECT_CONF
    if own.is_dir() and own.resolve() != packaged_conf():
        return own.resolve()
    return None


def cache_root() -> Path:
    """$LITLAB_CACHE, else litlab's folder in the user's cache directory (XDG base directory specification)."""
    if own := os.environ.get("LITLAB_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "litlab"


def add_project_to_path(project: Path | None = None) -> None:
    """Make the packages of the user's project (its folder, by default the current one, and its `src/`) importable."""
    project = project or Path.cwd()
    for folder in (project, project / "src"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))
