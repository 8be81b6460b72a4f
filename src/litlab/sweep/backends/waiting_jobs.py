"""File in a study that says which of its jobs wait for devices of another command, for `litlab status`."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from litlab.runs.files import as_mapping, open_regular, write_json
from litlab.runs.lock import LockOwner

FILE = ".waiting.json"
_MAX_BYTES = 1 << 16


def write_waiting_jobs(study: Path, reasons: Mapping[Path, str]) -> None:
    """Record which runs wait, with the reason; called by the process that holds the lock of the study."""
    with suppress(OSError):  # no reason to stop
        if reasons:
            names = {os.path.relpath(run, study): reason for run, reason in reasons.items()}
            write_json(study / FILE, {"process": os.getpid(), "jobs": names}, sync=False)
        else:
            (study / FILE).unlink(missing_ok=True)


def read_waiting_jobs(study: Path) -> dict[Path, str]:
    """Return the runs that wait, with the reason; none if the process that wrote them is not at work on the study."""
    try:
        with open_regular(study / FILE) as file:
            content = as_mapping(json.loads(file.read(_MAX_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}
    owner = LockOwner.read(study)
    if owner is None or owner.pid != content.get("process") or not owner.is_alive():
        return {}
    jobs = as_mapping(content.get("jobs"))
    return {(study / name).absolute(): reason for name, reason in jobs.items() if isinstance(reason, str)}
