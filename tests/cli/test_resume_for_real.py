"""`litlab resume` with a real worker: a run that is prolonged, and, cold, one that never began."""

import os
import sys
from pathlib import Path

import pytest
from support.runs import TINY, call_litlab, compose_config, train_here

from litlab.cli import resume
from litlab.config.config_file import to_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.metrics import read_metrics
from litlab.runs.signature import is_own, sign


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_prolonged_run_ends_where_a_longer_one_does(tmp_path: Path) -> None:
    short = train_here(tmp_path / "short", *TINY, "schedule=constant", "trainer.max_epochs=1")
    write_json(short.provenance, {"project": str(tmp_path)})
    sign(short)
    said = call_litlab(tmp_path, "resume", str(short.path), "trainer.max_epochs=2", "checkpoint.every_steps=7")
    assert said.stdout.startswith("checkpoint.every_steps: 1000 -> 7\ntrainer.max_epochs: 1 -> 2\n")
    assert said.stderr == ""
    whole = train_here(tmp_path / "whole", *TINY, "schedule=constant")
    results = [run.read_json(run.result) for run in (short, whole)]
    for key in ("status", "identity", "objective", "weights", "epochs", "steps", "best", "last", "test"):
        assert results[0][key] == results[1][key], key
    rows = [read_metrics(run.metrics) for run in (short, whole)]
    kept = [[row for row in each if not row.metric.startswith("throughput/")] for each in rows]
    assert kept[0] == kept[1]
    assert is_own(short)
    (entry,) = short.read_json(short.provenance)["resumed"]
    assert entry["changed"] == {"checkpoint.every_steps": [1000, 7], "trainer.max_epochs": [1, 2]}
    objective = results[0]["objective"]
    assert call_litlab(tmp_path, "resume", str(short.path)).stdout == (
        f"{short.path} is completed: val/accuracy {objective:.4f} after 20 steps; nothing to resume\n"
    )


def test_a_run_of_others_that_never_began(tmp_path: Path, tiny_run: RunDirectory) -> None:
    run = RunDirectory.create(tmp_path / "run", to_yaml(compose_config(*TINY)), {})
    resume.main([str(run.path), "logger=null"])
    assert run.read_json(run.result)["weights"] == tiny_run.read_json(tiny_run.result)["weights"]
    assert list(run.path.glob("events*")) == []
    assert not is_own(run)
