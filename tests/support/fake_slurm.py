"""Commands of SLURM as small scripts: they keep a queue in a file, and answer with what the real ones of 22.05 printed.

No job runs. A test sets the states of the queue and writes the files that the program of a job would write.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from litlab.runs.files import write_json
from litlab.sweep.backends.base import Job
from litlab.sweep.backends.slurm_job import ElementFiles, read_list

UNREACHABLE = "Unable to contact slurm controller (connect failure)"
_SCRIPT = """#!{python}
import json, os, pathlib, sys
path = pathlib.Path({queue!r})
queue = json.loads(path.read_text())
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
queue["calls"].append([name, *arguments])
if name in queue["errors"]:
    error = queue["errors"][name]
    path.write_text(json.dumps(queue))
    sys.exit(error)
options = dict(argument.lstrip("-").partition("=")[::2] for argument in arguments if argument.startswith("--"))
if name == "sbatch" and "test-only" in options:
    print("sbatch: Job 4 to start at 2026-11-29T15:11:21 using 2 processors on nodes n1", file=sys.stderr)
elif name == "sbatch":
    queue["scripts"].append(sys.stdin.read())
    array_id, last = str(len(queue["scripts"])), int(options["array"].partition("%")[0].partition("-")[2])
    for index in range(last + 1):
        queue["elements"][f"{{options['job-name']}} {{index}}"] = [array_id, "PENDING", "Resources"]
    if queue["loses_answer"]:
        queue["loses_answer"] = False
        path.write_text(json.dumps(queue))
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    print(array_id)
elif name == "squeue":
    for key, (array_id, state, reason) in queue["elements"].items():
        job, index = key.split()
        if job in options["name"].split(","):
            print(f"{{array_id}}|{{index}}|{{job}}|{{state}}|{{reason}}")
elif name == "scancel":
    for key, element in queue["elements"].items():
        if f"{{element[0]}}_{{key.split()[1]}}" in arguments and element[1] in ("PENDING", "RUNNING"):
            element[1:] = ["CANCELLED", "None"]
elif arguments == ["show", "config"]:
    print("MaxArraySize            = 4\\nKillWait                = 30 sec")
path.write_text(json.dumps(queue))
"""


@dataclass
class FakeSlurm:
    """Queue of the fake commands.

    Attributes:
        folder: Folder of the commands, first on the PATH.
    """

    folder: Path
    _queue: Path = field(init=False)

    def __post_init__(self) -> None:
        self._queue = self.folder / "queue.json"
        self._save({"calls": [], "scripts": [], "elements": {}, "errors": {}, "loses_answer": False})
        script = _SCRIPT.format(python=sys.executable, queue=str(self._queue))
        for name in ("sbatch", "squeue", "scancel", "scontrol"):
            (self.folder / name).write_text(script)
            (self.folder / name).chmod(0o755)

    def _read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._queue.read_text())
        return content

    def _save(self, content: Mapping[str, Any]) -> None:
        self._queue.write_text(json.dumps(content))

    def calls(self, name: str) -> list[list[str]]:
        """Return the arguments of each call of a command."""
        return [arguments for command, *arguments in self._read()["calls"] if command == name]

    def scripts(self) -> list[str]:
        """Return the scripts that were submitted."""
        scripts: list[str] = self._read()["scripts"]
        return scripts

    def fail(self, name: str, error: str | None) -> None:
        """Let a command fail with an error from now on; None for no more."""
        queue = self._read()
        queue["errors"] = {key: value for key, value in queue["errors"].items() if key != name}
        queue["errors"] |= {} if error is None else {name: error}
        self._save(queue)

    def lose_answer(self) -> None:
        """Let the next sbatch submit its jobs and then fail, as when the answer is lost."""
        self._save(self._read() | {"loses_answer": True})

    def set_state(self, job: Job, state: str | None, reason: str = "None") -> None:
        """Set the state of a job; None makes SLURM forget it."""
        queue, files = self._read(), self.files(job)
        key = f"litlab-{files.token} {files.index}"
        if state is None:
            del queue["elements"][key]
        else:
            queue["elements"][key][1:] = [state, reason]
        self._save(queue)

    def duplicate(self, job: Job, state: str) -> None:
        """Add a second element of the same name and index, as by an sbatch that was called again."""
        queue, files = self._read(), self.files(job)
        queue["elements"][f"litlab-{files.token}  {files.index}"] = ["99", state, "None"]  # another key by its spaces
        self._save(queue)

    def end(self, job: Job, code: int, status: str | None, state: str = "COMPLETED") -> None:
        """End a job: its files, and its state."""
        if status is not None:
            write_json(job.run.result, {"status": status, "error": "" if status == "completed" else "stopped"})
        self.files(job).record_exit(code)
        self.set_state(job, state)

    def files(self, job: Job) -> ElementFiles:
        """Return the files of the last element of a job."""
        lists = sorted((job.run.path.parent / ".slurm").glob("*.list"), key=lambda path: path.stat().st_mtime_ns)
        indices = [(listed, read_list(listed)) for listed in lists]
        listed, runs = next(pair for pair in reversed(indices) if job.run.path in pair[1])
        return ElementFiles(listed.parent, listed.stem, runs.index(job.run.path))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return FakeSlurm(folder)
