"""Secrets in the environment, in URLs and in sources get into no file of a run."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.runs import TINY, call_litlab

from litlab.config.config_file import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

TOKEN, PASSWORD, SIGNATURE = "canary-token-4711", "canary-pass-0815", "canary-sign-1234"
UNRELATED, WRITTEN = "canary-other-2222", "canary-literal-3333"
CANARIES = (TOKEN, PASSWORD, SIGNATURE, UNRELATED, WRITTEN)
SECRETS = {
    "CANARY": TOKEN,
    "CANARY_URL": f"https://me:{PASSWORD}@127.0.0.1:9/x?sig={SIGNATURE}&v=1",
    "SOMETHING_ELSE": UNRELATED,
}
MODULE = f"""
import logging, os, warnings

from lightning.pytorch import Callback

from litlab.tasks.image_classifier import ImageClassifier

api_key = "{WRITTEN}"


class Keeper(Callback):
    \"\"\"Callback that logs its secrets.\"\"\"

    def __init__(self, *, token, address, fail):
        self.token, self.address, self.fail = token, address, fail

    def on_train_start(self, trainer, module):
        assert self.token == os.environ["CANARY"] and self.address == os.environ["CANARY_URL"]
        logging.getLogger("mine").warning("the token is %s", self.token)
        warnings.warn(f"cannot reach {{self.address}}")
        if self.fail:
            raise RuntimeError(f"{{self.address}} refused {{self.token}}")

    def state_dict(self):
        return {{"steps": 1}}


class Task(ImageClassifier):
    def __init__(self, *, token, **arguments):
        super().__init__(**arguments)
        self.save_hyperparameters({{"token": token}})
"""
KEEPER = (
    "+callbacks.keeper={_target_: mine.Keeper, token: '${oc.env:CANARY}', address: '${oc.env:CANARY_URL}', fail: %s}"
)
CARELESS = ("task._target_=mine.Task", "+task.token=${oc.env:CANARY}", "hydra.run.dir=run")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a repository with a changed and a new source, both of which hold secrets."""
    folder = tmp_path_factory.mktemp("canary")
    run = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / "mine.py").write_text("")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*run, *arguments], check=True, capture_output=True)
    subprocess.run([*run, "remote", "add", "origin", f"https://me:{WRITTEN}@127.0.0.1/x"], check=True)
    (folder / "mine.py").write_text(MODULE)
    (folder / "notes.yaml").write_text(f"server:\n  password: {WRITTEN}\n  url: https://me:{WRITTEN}@127.0.0.1/\n")
    experiment = folder / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(f"# @package _global_\nhydra: {{job: {{env_set: {{MY_TOKEN: {WRITTEN}}}}}}}\n")
    return folder


def litlab_train(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return call_litlab(project, "train", *arguments, *TINY, **SECRETS)


def holding(folder: Path) -> list[tuple[str, str]]:
    """Return (file, canary) for each secret in a file or file name."""
    leaks = []
    for path in sorted(folder.rglob("*")):
        content = os.fsencode(path) + (path.read_bytes() if path.is_file() else b"")
        leaks += [(str(path.relative_to(folder)), canary) for canary in CANARIES if canary.encode() in content]
    return leaks


def test_completed_run_holds_no_secrets(project: Path) -> None:
    done = litlab_train(project, *CARELESS, KEEPER % "false", "experiment=mine")
    assert done.returncode == 0, done.stderr
    run = RunDirectory(project / "run")
    assert len([path for path in run.path.rglob("*") if path.is_file()]) > 9
    assert holding(run.path) == []
    log = run.log.read_text()
    assert "the token is ***" in log
    assert "cannot reach ***" in log
    assert "MY_TOKEN: '***'" in (run.path / ".hydra" / "hydra.yaml").read_text()
    config = from_yaml(run.config.read_text())
    assert config["callbacks"]["keeper"]["address"] == "${oc.env:CANARY_URL}"
    code = run.read_json(run.provenance)["code"]
    assert 'api_key = "***"' in code["diff"]
    assert not code["diff_complete"]
    assert code["untracked"]["notes.yaml"] == "server:\n  password: ***\n  url: https://***@127.0.0.1/\n"


def test_failed_run_masks_secrets_in_its_error(project: Path) -> None:
    done = litlab_train(project, *CARELESS, KEEPER % "true", "hydra.run.dir=failed")
    assert done.returncode == 1
    run = RunDirectory(project / "failed")
    assert holding(run.path) == []
    assert "RuntimeError: *** refused ***" in read_result(run)["error"]
    assert "RuntimeError: *** refused ***" in run.log.read_text()
    assert TOKEN not in done.stderr


@pytest.mark.parametrize(
    ("experiment", "arguments"),
    [
        ("", ("-m", f"+callbacks.keeper={{_target_: mine.Keeper, token: {WRITTEN}}}", "seed=0,1")),
        ("", (f"data.url=https://me:{WRITTEN}@127.0.0.1/x",)),
        (f"hydra: {{job: {{env_set: {{my_token: {WRITTEN}}}}}}}", ("-m", "experiment=mine", "seed=0,1")),
        (f"callbacks: {{mine: {{token: {WRITTEN}}}}}", ("-m", "experiment=mine", "seed=0,1")),
    ],
)
def test_a_literal_secret_is_refused_before_anything_is_written(
    experiment: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """A literal on the command line or in a file is refused; of a multirun, Hydra would write it to multirun.yaml."""
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{experiment}")
    done = litlab_train(tmp_path, *arguments)
    assert done.returncode == 1
    assert re.search(r"(token|data\.url): looks like a secret", done.stderr)
    assert WRITTEN not in done.stderr + done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
