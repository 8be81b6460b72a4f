"""An sbatch that kills the command that calls it, at a moment at which little else would."""

import os
import shutil
from pathlib import Path

MOMENTS = ("before", "meanwhile", "after")  # SLURM has the array; while sbatch works; and sbatch answers
_SCRIPT = """#!/bin/sh
moment=$(cat '{folder}/moment' 2>/dev/null)
case "$*" in *--test-only*) moment= ;; esac
[ -z "$moment" ] || rm '{folder}/moment'
case "$moment" in
    before) kill -9 $PPID; exit 1 ;;
    meanwhile) script=$(cat); kill -9 $PPID; sleep 5; echo "$script" | {sbatch} "$@" ;;
    after) answer=$({sbatch} "$@"); kill -9 $PPID; echo "$answer" ;;
    *) exec {sbatch} "$@" ;;
esac
"""


class KillingSbatch:
    """The command sbatch, in front of the real one.

    Args:
        folder: Folder for it, which is created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sbatch").write_text(_SCRIPT.format(folder=folder, sbatch=shutil.which("sbatch")))
        (folder / "sbatch").chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a command that is to call it."""
        return os.environ | {"PATH": f"{self._folder}{os.pathsep}{os.environ['PATH']}"}

    def arm(self, moment: str) -> None:
        """Kill the caller of the next submission at one of the `MOMENTS`."""
        (self._folder / "moment").write_text(moment)
