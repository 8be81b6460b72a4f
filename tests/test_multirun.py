"""`litlab train -m` by Hydra's own launcher: a directory for each job, named by what varies; failures are told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import TINY, call_litlab

from litlab.cli import main
from litlab.config.freeze import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

SHORT = (*TINY, "trainer.max_epochs=1")
COUNTED = ("trainer.devices=auto", "trainer.accelerator=auto")  # the worker counts devices, by torch


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, after a multirun of two seeds in it."""
    folder = tmp_path_factory.mktemp("multirun")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("OMP_NUM_THREADS")  # the tests' own
        done = call_litlab(folder, "train", "-m", *SHORT, *COUNTED, "seed=0,1")
    assert done.returncode == 0, done.stderr
    return folder


def test_each_job_is_a_complete_run_in_a_directory_of_its_own(project: Path) -> None:
    (study,) = (project / "outputs" / "shapes_cnn").iterdir()
    assert re.fullmatch(r"multirun_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", study.name)
    jobs = sorted(path for path in study.iterdir() if path.is_dir())
    assert [path.name for path in jobs] == ["0000_seed-0", "0001_seed-1"]
    results = []
    for number, path in enumerate(jobs):
        run = RunDirectory(path)
        assert from_yaml(run.config.read_text())["seed"] == number
        results.append(read_result(run))
        assert (results[-1]["status"], results[-1]["steps"]) == ("completed", 10)
        assert run.best.exists()
        assert {row.metric for row in read_metrics(run.metrics)} >= {"train/loss", "val/accuracy", "test/accuracy"}
        assert (path / ".hydra" / "overrides.yaml").exists()
        assert run.read_json(run.provenance)["machine"]["threads"] == 1
    assert results[0]["identity"] != results[1]["identity"]
    assert results[0]["test"] != results[1]["test"]


@pytest.fixture(scope="module")
def failed(project: Path) -> "subprocess.CompletedProcess[str]":
    """A named study of three jobs: a bad value, a split that only a worker finds impossible, another bad value."""
    sweep = ("study.name=mine", "data.num_train=30", "optimizer.lr=-1,0.05,-2")
    return call_litlab(project, "train", "-m", *SHORT, *sweep)


def test_a_job_that_fails_makes_the_command_fail(failed: "subprocess.CompletedProcess[str]") -> None:
    assert failed.returncode == 1
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "optimizer.lr=-1: expected greater than 0" in failed.stderr


def test_a_named_study_has_a_directory_of_that_name(project: Path, failed: object) -> None:
    jobs = [path for path in (project / "outputs" / "mine").iterdir() if path.is_dir()]
    assert [path.name for path in jobs] == ["0001_lr-0.05"], "the others left nothing behind"
    result = read_result(RunDirectory(jobs[0]))
    assert result["status"] == "refused", "it went on after the first had failed"
    assert "val_size" in result["error"]


def test_a_process_that_only_imports_the_job_can_resolve_its_config() -> None:
    """So a launcher has it that calls the job in a process of its own."""
    code = "import litlab.train, omegaconf; print(omegaconf.OmegaConf.create({'x': '${litlab.id:}'}).x)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.fullmatch(r"[0-9a-f]{6}\n", done.stdout), done.stderr


@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_a_place_that_cannot_be_written(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["litlab", "train", f"hydra.mode={mode}", "name=mine"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("litlab: outputs/mine/")
    assert "Not a directory" in said
    assert "hydra.run.dir=" in said
