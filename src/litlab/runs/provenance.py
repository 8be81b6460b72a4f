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

from litlab.runs.processor import num_cores, processor_name
from litlab.runs.redact import mask_command, mask_diff, mask_source

MAX_TEXT = 1 << 20  # bytes of the diff, or of an untracked source: enough for code, too little for data
SOURCES = (".py", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".md")
_NAME_AND_VERSION = re.compile(r"^(Name|Version): *(.+)$", re.MULTILINE)  # in the metadata of a package


def describe_launch(project: Path, command: list[str]) -> dict[str, Any]:
    """Describe a command, its project folder and the state of the code in it; print a note if git refuses to tell that.

    Args:
        project: Folder in which the command was called.
        command: Command line in words; secrets are masked.

    Returns:
        Content of provenance.json as far as the controller knows it.
    """
    launch = {
        "format": 1,
        "command": mask_command(command),
        "project": str(project),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": _code(project),
    }
    if launch["code"] is None and (problem := _git_problem(project)):
        print(f"note: the commit and the changes of the code are not recorded: {problem}", file=sys.stderr)
        launch["code_problem"] = problem
    return launch


def describe_machine() -> dict[str, Any]:
    """Describe this machine and its environment: system, processor, cores, package versions."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor_name(),
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
    """Return the output of a command of git; None if it fails."""
    process = _run_git(project, *arguments)
    return process.stdout.decode(errors="replace") if process is not None and process.returncode == 0 else None


def _git_problem(project: Path) -> str | None:
    """Return why git does not tell the commit of a repository; None outside of one, and without git."""
    process = _run_git(project, "rev-parse", "HEAD")
    lines = process.stderr.decode(errors="replace").splitlines() if process is not None else []
    if not lines or "not a git repository" in lines[0]:
        return None
    if "unknown revision" in lines[0]:
        return "the repository has no commit yet"
    advice = "; to trust it: " + lines[-1].strip() if "safe.directory" in lines[-1] else ""
    return lines[0].replace("fatal:", "git:") + advice


def _run_git(project: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes] | None":
    command, environment = ["git", "-C", str(project), *arguments], os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
