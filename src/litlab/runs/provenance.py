"""provenance.json: what is needed to know, or to repeat, what made a run."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from litlab.runs.redact import mask_command, mask_diff, mask_source

LIMIT = 1 << 20  # bytes of diff, and of one untracked source: enough for code, too little for data
SOURCES = (".py", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".md")


def of_launch(project: Path, command: list[str]) -> dict[str, Any]:
    """What the controller knows: the command, the project and the state of its code."""
    return {
        "format": 1,
        "command": mask_command(command),
        "project": str(project),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": _code(project),
    }


def of_machine() -> dict[str, Any]:
    """What is true of this machine and its environment: system, cores, package versions."""
    described = (each.metadata for each in metadata.distributions())  # parsed anew at each look
    packages = {each["Name"]: each["Version"] for each in described if each["Name"]}
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "python": sys.version.split()[0],
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _code(project: Path) -> dict[str, Any] | None:
    """Commit, diff and untracked files of the project's git repository; None outside one.

    What looks like a literal secret in them is masked; other secrets in sources can't be told from code.
    """
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(project, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    names = (_git(project, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    names = [name for name in names if name and not _in_a_run(project, name)]
    untracked: dict[str, str | None] = {name: _source(project / name) for name in names}
    kept = mask_diff(diff[:LIMIT])
    return {
        "commit": commit.strip(),
        "diff": kept,
        "diff_complete": kept == diff,
        "untracked": untracked,
    }


def _in_a_run(project: Path, name: str) -> bool:
    """Whether a file belongs to a run: without a .gitignore, each would keep the configs of all before it."""
    return any((project / folder / ".hydra").is_dir() for folder in list(Path(name).parents)[:-1])


def _source(path: Path) -> str | None:
    """The text of an untracked source file; None for what is none, or too large: it stands there by its name alone."""
    if path.suffix not in SOURCES or path.is_symlink() or not path.is_file() or path.stat().st_size > LIMIT:
        return None
    return mask_source(path.read_text(encoding="utf-8", errors="replace"), path.suffix)


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def num_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
