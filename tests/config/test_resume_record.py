"""The record of a resumption survives an interrupt at any point."""

from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, compose_config, is_own

from litlab.config import resume_record
from litlab.config.config_file import from_yaml, to_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.result import Result, write_result
from litlab.runs.signature import sign
from litlab.runs.state import RunStatus

LAUNCH = {"started": "2026-01-31T12:00:00+00:00", "command": ["litlab", "resume"], "code": {"commit": "of now"}}
CHANGED = {"trainer.max_epochs": [2, 3]}
CONFIG = compose_config(*TINY, "schedule=constant")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Create a completed run of the user's own."""
    run = RunDirectory.create(tmp_path / "run", to_yaml(CONFIG), {})
    write_json(run.provenance, {"code": {"commit": "of then"}})
    write_result(run, Result(RunStatus.COMPLETED, ""))
    sign(run)
    return run


def extend(run: RunDirectory) -> list[str]:
    config: dict[str, Any] = CONFIG | {"trainer": CONFIG["trainer"] | {"max_epochs": 3}}
    return resume_record.write_resume_record(run, config, CHANGED, LAUNCH, own=True, extends_training=True)


@pytest.mark.parametrize("function", ["write_json", "write_text"])
def test_the_same_call_completes_an_interrupted_record(
    function: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(resume_record, function, interrupt)
        with pytest.raises(KeyboardInterrupt):
            extend(run)
    assert from_yaml(run.config.read_text())["trainer"]["max_epochs"] == 2
    assert is_own(run)
    extend(run)
    assert from_yaml(run.config.read_text())["trainer"]["max_epochs"] == 3
    assert is_own(run)
    assert run.read_json(run.provenance)["resumed"][-1]["changed"] == CHANGED
    assert not run.result.exists()


def test_changed_code_is_noted(run: RunDirectory) -> None:
    assert extend(run) == [
        "the project's code has changed since the run started; the run continues with the present code"
    ]
    write_json(run.provenance, {"code": LAUNCH["code"]})
    assert extend(run) == []
