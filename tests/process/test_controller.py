"""The controller with a worker that starts cold, as it does outside of these tests."""

import shutil
from pathlib import Path

from support.runs import call_cold

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result


def test_resume_starts_a_new_interpreter(tiny_run: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(tiny_run.path, run.path)
    run.result.unlink()
    done = call_cold(tmp_path, "resume", str(run.path))
    assert done.returncode == 0, done.stderr
    assert read_result(run)["weights"] == read_result(tiny_run)["weights"]
