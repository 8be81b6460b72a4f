"""Tests of `litlab train hydra/sweeper=decide`: real runs, a killed command, growth, other studies, wrong input."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import wait_until
from support.runs import TINY, call_litlab
from support.warm import WarmProcess

from litlab.sweep.study import Study

RUN = (*TINY, "trainer.max_epochs=1", "objective.metric=val/loss", "objective.mode=min")
DECIDE = (
    "-m", "hydra/sweeper=decide", *RUN, "optimizer.lr=0.1,1e-9,0.099", "hydra.sweeper.baseline=optimizer.lr=0.1",
    "hydra.sweeper.seeds_max=4", "hydra.sweeper.alpha=0.3", "hydra.sweeper.delta=0.05", "hydra.launcher.jobs=2",
)  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def whole(project: Path) -> "subprocess.CompletedProcess[str]":
    return call_litlab(project, "train", *DECIDE, "study.name=whole")


def decision(study: Path) -> dict[str, Any]:
    """Return the answer without the number of runs, which depends on how many ran ahead."""
    answer: dict[str, Any] = json.loads((study / "decision.json").read_text())
    del answer["runs"]
    return answer


@pytest.mark.integrations
def test_settings_are_decided_with_their_runs_saved(
    project: Path, whole: "subprocess.CompletedProcess[str]", call_here: Call
) -> None:
    assert whole.returncode == 0, whole.stderr
    answer = decision(project / "outputs" / "whole")
    verdicts = {row["name"]: row["verdict"] for row in answer["rows"]}
    assert verdicts["lr=0.1"] == "baseline"
    assert verdicts["lr=0.099"] == "within delta"
    assert answer["is_over"]
    assert answer["sentence"] in whole.stdout
    assert "of 12" in whole.stdout or "instead of 12" in whole.stdout
    assert len(Study.load(project / "outputs" / "whole").records) < 12
    plan = Study.load(project / "outputs" / "whole").plan
    assert plan is not None
    assert plan.planned_seeds == [4]
    code, output, _ = call_here(project, "status", "outputs/whole")
    assert code == 0
    assert answer["sentence"] in output


@pytest.mark.integrations
def test_a_killed_command_is_continued_with_the_same_decisions(
    project: Path, whole: "subprocess.CompletedProcess[str]"
) -> None:
    study = project / "outputs" / "killed"
    process = WarmProcess(["litlab", "train", *DECIDE, "study.name=killed"], project)
    wait_until(lambda: len(list(study.glob("*/result.json"))) >= 5 or process.poll() is not None)
    process.kill()
    process.wait()
    assert len(list(study.glob("*/result.json"))) >= 5
    assert not decision(study)["is_over"]
    continued = call_litlab(project, "resume", "outputs/killed")
    assert continued.returncode == 0, continued.stderr
    assert decision(study) == decision(project / "outputs" / "whole")


@pytest.mark.integrations
def test_a_decided_study_grows(project: Path, whole: "subprocess.CompletedProcess[str]") -> None:
    grown_study = shutil.copytree(project / "outputs" / "whole", project / "outputs" / "grown")
    before = {record.number for record in Study.load(grown_study).records}
    fixed = [argument for argument in DECIDE if not argument.startswith(("optimizer.lr", "hydra.sweeper.baseline"))]
    settings = (
        "{start:[optimizer.lr=0.10],none:[optimizer.lr=1e-9],near:[optimizer.lr=0.099],tiny:[optimizer.lr=1e-8,NAME]}"
    )
    name = "${oc.env:TINY_NAME}"  # jobs record the reference, which may be to a secret
    settings = settings.replace("NAME", f"name={name}")
    more = (*fixed, f"hydra.sweeper.settings={settings}", "hydra.sweeper.baseline=start", "study.name=grown")
    grown = call_litlab(project, "train", *more, TINY_NAME="small")
    assert grown.returncode == 0, grown.stderr
    assert "note: tiny: added later, and tested at 0.03, the share of alpha=0.3 that was reserved" in grown.stdout
    new = [record for record in Study.load(grown_study).records if record.number not in before]
    assert {record.point["optimizer.lr"] for record in new} <= {"1e-8", "0.1"}
    assert {record.point["name"] for record in new if record.point["optimizer.lr"] == "1e-8"} == {name}
    smaller = call_litlab(project, "train", *DECIDE, "study.name=grown")
    assert smaller.returncode == 1
    assert "compares tiny as well, which this command leaves out" in smaller.stderr


@pytest.mark.integrations
@pytest.mark.parametrize(
    "change", [("max_epochs=1", "max_epochs=2"), ("metric=val/loss", "metric=val/calibration_error")]
)
def test_a_value_that_is_fixed_can_not_change(
    change: tuple[str, str], project: Path, whole: "subprocess.CompletedProcess[str]", call_here: Call
) -> None:
    changed = [argument.replace(*change) for argument in DECIDE]
    code, _, errors = call_here(project, "train", *changed, "study.name=whole")
    assert code == 1
    assert "is another study with a different value of a fixed key:" in errors
    assert change[1].partition("=")[0] in errors


@pytest.mark.integrations
def test_the_best_of_a_study_get_seeds_that_have_not_selected_them(project: Path) -> None:
    grid = call_litlab(project, "train", "-m", *RUN, "optimizer.lr=0.1,0.01,1e-9", "seed=1", "study.name=grid")
    assert grid.returncode == 0, grid.stderr
    arguments = ("-m", "hydra/sweeper=decide", *RUN, "hydra.sweeper.from_study=outputs/grid", "hydra.sweeper.best=2")
    best = call_litlab(project, "train", *arguments, "hydra.sweeper.seeds_max=3", "study.name=best")
    assert best.returncode == 0, best.stderr
    points = [record.point for record in Study.load(project / "outputs" / "best").records]
    assert {point["seed"] for point in points} == {"0", "2", "3"}
    assert {point["optimizer.lr"] for point in points} == {"0.1", "0.01"}
    jobs = project / "outputs" / "grid" / "jobs.jsonl"
    written = jobs.read_text()
    jobs.write_text(written.replace('"optimizer.lr=0.1"', '"optimizer.lr=0.1", "+callbacks.x._target_=os.system"'))
    hostile = call_litlab(project, "train", *arguments, "study.name=hostile")
    assert hostile.returncode == 1
    assert "was started with +callbacks.x._target_=os.system, which its config.yaml does not have" in hostile.stderr
    jobs.write_text(written)
    again = call_litlab(project, "resume", "outputs/best")
    assert again.returncode == 0, again.stderr
    assert "no job was started" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to compare"),
        (["seed=1,2"], "seed=1: decide chooses the seeds itself"),
        (["optimizer.lr=0.1,0.2", "seed=3"], "seed=3: decide chooses the seeds itself"),
        (["optimizer.lr=0.1,0.2", "objective=null"], "objective=null: decide needs to know what is better"),
        (["optimizer.lr=0.1,0.2", "data.val_size=0"], "data.val_size=0: without validation data there is no val/loss"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.baseline=optimizer.lr=0.3"], "no setting is this"),
        (["optimizer.lr=0.1,-2"], "optimizer.lr=-2: expected greater than 0"),
        (["hydra.sweeper.settings={a:[optimizer.lr=0.05],b:[]}"], "b and a are the same experiment"),
        (
            ["optimizer.lr=0.1,0.2", "hydra.sweeper.settings={a:[optimizer.lr=1],b:[]}"],
            "optimizer.lr: expected one value",
        ),
        (["hydra.sweeper.settings={a:[seed=1],b:[]}"], "seed=1: decide chooses the seeds itself"),
        (["hydra.sweeper.from_study=outputs/none"], "there is no study"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.seeds_max=1"], "hydra.sweeper.seeds_max=1: expected greater than or"),
        (
            ["optimizer.lr=0.1,0.2", "hydra/launcher=basic"],
            "decide needs one of litlab's launchers",
        ),
        (["optimizer.lr=0.1,0.2", "study.seeds=7"], "study.seeds=7: fewer than hydra.sweeper.seeds_max=20"),
        (["optimizer.lr=0.1,0.2", "study.ablate={a:[data.flip=false]}"], "study.ablate: is for hydra/sweeper=grid"),
    ],
)
def test_wrong_commands_are_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, call_here: Call
) -> None:
    code, _, errors = call_here(tmp_path, "train", "-m", "hydra/sweeper=decide", *RUN, *arguments)
    assert message in errors
    assert code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_describes_the_study_and_writes_nothing(tmp_path: Path, call_here: Call) -> None:
    code, output, _ = call_here(tmp_path, "train", *DECIDE, "--dry-run")
    assert code == 0
    assert "2 settings against lr=0.1, decided by val/loss (min)" in output
    assert "up to 4 seeds each, so at most 12 runs; 0 jobs known" in output
    assert list(tmp_path.iterdir()) == []
    two = [argument.replace("0.1,1e-9,0.099", "0.1,0.099") for argument in DECIDE]
    assert "1 setting against lr=0.1," in call_here(tmp_path, "train", *two, "--dry-run")[1]
