"""The provenance of a run: command, state of the code, machine; enough to repeat the run."""

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

MAX_TEXT = 1 << 20  # bytes of the diff, or of an untracked source: enough for code, too little for data
SOURCES = (".py", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".md")
_NAME_AND_VERSION = re.compile(r"^(Name|Version): *(.+)$", re.MULTILINE)  # in the metadata of a package


def describe_launch(project: Path, command: list[str]) -> dict[str, Any]:
    """Describe a command, its project folder and the state of the code in it.

    Args:
        project: Folder in which the command was called.
        command: Command line in words; secrets are masked.

    Returns:
        Content of provenance.json as far as the controller knows it.
    """
    return {
        "format": 1,
        "command": mask_command(command),
        "project": str(project),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": _code(project),
    }


def describe_machine() -> dict[str, Any]:
    """Describe this machine and its environment: system, processor, cores, package versions."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "python": sys.version.split()[0],
        "packages": dict(sorted(_packages().items(), key=lambda item: item[0].lower())),
    }


def _packages() -> dict[str, str]:
    """Read the versions of all installed packages; `Distribution.metadata` would take seven times as long."""
    packages = {}
    for distribution in metadata.distributions():
        files = map(distribution.read_text, ("METADATA", "PKG-INFO", ""))  # of a wheel, of an egg, the egg itself
        text = next(filter(None, files), "")
        fields = dict(_NAME_AND_VERSION.findall(text.partition("\n\n")[0]))
        if len(fields) == 2:
            packages[fields["Name"]] = fields["Version"]
    return packages


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def _code(project: Path) -> dict[str, Any] | None:
    """Describe commit, diff and untracked files of the project's git repository, masked; None outside one."""
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(project, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    untracked = {name: _source(project / name) for name in list_untracked_files(project)}
    masked = mask_diff(diff[:MAX_TEXT])
    return {"commit": commit.strip(), "diff": masked, "diff_complete": masked == diff, "untracked": untracked}


def list_tracked_files(project: Path) -> list[str]:
    """List the tracked files below a project, by paths relative to it; empty outside of a git repository."""
    return list(filter(None, (_git(project, "ls-files", "-z") or "").split("\0")))


def list_untracked_files(project: Path) -> list[str]:
    """List the files below a project that git neither tracks nor ignores, without those of runs."""
    names = (_git(project, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    return [name for name in names if name and not _in_a_run(project, name)]


def _in_a_run(project: Path, name: str) -> bool:
    """Tell whether a file belongs to a run: without a .gitignore, each run would record the configs of all others."""
    return any((project / folder / ".hydra").is_dir() for folder in list(Path(name).parents)[:-1])


def _source(path: Path) -> str | None:
    """Read an untracked source file; None for other and for large files, which are recorded by name alone."""
    if path.suffix not in SOURCES or path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_TEXT:
        return None
    return mask_source(path.read_text(encoding="utf-8", errors="replace"), path.suffix)


def _git(project: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return process.stdout.decode(errors="replace") if process.returncode == 0 else None


def num_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
