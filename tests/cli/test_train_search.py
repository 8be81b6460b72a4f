"""Tests of `litlab train hydra/sweeper=search`: real runs with pruning, dry run, invalid input, Optuna's dashboard."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from support.runs import TINY, call_litlab

from litlab.sweep.study import Study

SEARCH = (
    "-m", "hydra/sweeper=search", *TINY, "trainer.max_epochs=12", "study.name=mine", "hydra.launcher.jobs=1",
    "objective.metric=val/loss", "objective.mode=min", "optimizer.lr=0.05,1e-9", "hydra.sweeper.trials=5",
    "+hydra.sweeper.pruner_options.n_startup_trials=1",
    "hydra.sweeper.storage=${oc.env:SEARCH_STORAGE}",
)  # fmt: skip
SECRET = "canary-word"  # in the address of the database
Completed = subprocess.CompletedProcess[str]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def done(project: Path) -> Completed:
    """Search over a good and a hopeless learning rate, in a database of the user."""
    with pytest.MonkeyPatch.context() as environment:
        url = f"sqlite:///file:{project / 'trials.db'}?uri=true&password={SECRET}"
        environment.setenv("SEARCH_STORAGE", url)
        return call_litlab(project, "train", *SEARCH, "hydra.sweeper.seed=0")


@pytest.mark.integrations
def test_a_search_prunes_jobs_and_reports_its_results(project: Path, done: Completed) -> None:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of 2 jobs pruned" in done.stdout
    assert "best by val/loss (min)" in done.stdout
    assert "every point of the space has its trial now: 2 of the 5 asked for" in done.stdout
    statuses = {
        record.point["optimizer.lr"]: json.loads(run.result.read_text())["status"]
        for record, run in Study.load(project / "outputs" / "mine").jobs()
    }
    assert statuses == {"0.05": "completed", "1e-09": "pruned"}


@pytest.mark.integrations
def test_the_trials_are_in_the_database_and_its_password_nowhere(project: Path, done: Completed) -> None:
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{project / 'trials.db'}")
    assert study.n_trials == 2
    assert study.study_name.startswith("mine-")
    files = [path for path in (project / "outputs").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in done.stdout + done.stderr
    assert "${oc.env:SEARCH_STORAGE}" in (project / "outputs" / "mine" / "study.yaml").read_text()


@pytest.mark.integrations
def test_the_dashboard_opens_the_trials(project: Path, done: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [program, f"sqlite:///{project / 'trials.db'}", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dashboard:
        try:
            answer = answered(f"http://127.0.0.1:{port}/api/studies")
        finally:
            dashboard.kill()
    assert [summary["study_name"].partition("-")[0] for summary in json.loads(answer)["study_summaries"]] == ["mine"]


def answered(address: str) -> bytes:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(URLError), urlopen(address, timeout=5) as answer:
            content: bytes = answer.read()
            return content
        time.sleep(0.1)
    raise TimeoutError(address)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1"], "there is nothing to search"),
        (["seed=1,2", "hydra/launcher=basic"], "one by one and can stop them: pool, slurm, ray"),
        (["seed=1,2", "objective=null"], "objective=null: a search needs to know what is better"),
        (["optimizer.lr=-1,-2"], "optimizer.lr=-1: expected greater than 0"),
        (["seed=1,2", "hydra.sweeper.storage=mysql://me:pass@there/x"], "looks like a secret"),
    ],
)
def test_invalid_searches_are_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, call_here: Call
) -> None:
    code, _, errors = call_here(tmp_path, "train", "-m", "hydra/sweeper=search", *TINY, *arguments)
    assert code == 1
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_describes_the_search_and_writes_nothing(tmp_path: Path, call_here: Call) -> None:
    arguments = ("hydra/sweeper=search", *TINY, "optimizer.lr=tag(log,interval(1e-3,1))", "hydra.launcher.dry_run=true")
    code, output, _ = call_here(tmp_path, "train", "-m", *arguments)
    assert code == 0
    assert "a search of 20 trials for val/accuracy (max)" in output
    assert "optimizer.lr  tag(log,interval(1e-3,1))" in output
    assert list(tmp_path.iterdir()) == []
