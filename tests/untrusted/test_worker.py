"""Workers check untrusted runs, too, on every rank."""

import os
import subprocess
from pathlib import Path

import yaml
from support.hostile import change, plant
from support.warm import run_warm

from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign


def work(run: RunDirectory, **environment: str) -> "subprocess.CompletedProcess[str]":
    run.result.unlink(missing_ok=True)
    command = ["litlab.training.worker", str(run.path)]
    return run_warm(command, Path.cwd(), environment=os.environ | environment, timeout=200)


def test_a_worker_builds_nothing_hostile_on_any_rank(whole: RunDirectory, mark: Path) -> None:
    plant(Path.cwd(), mark)
    frozen = yaml.safe_load(whole.config.read_text())
    change(whole.path, model={"_target_": "theirs.Net"}, trainer=frozen["trainer"] | {"devices": 2})
    done = work(whole)
    assert done.returncode == 1
    assert "may not be a run of yours" in done.stderr
    assert "--allow theirs" in done.stderr
    assert not mark.exists()
    change(whole.path, trainer=frozen["trainer"])
    work(whole, LITLAB_ALLOW="theirs")
    assert mark.exists()
    mark.unlink()
    sign(whole)
    (whole.path / "provenance.json").write_text('{"project": "/nowhere"}')
    assert work(whole).returncode == 1
    assert not mark.exists()
