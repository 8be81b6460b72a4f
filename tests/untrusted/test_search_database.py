"""Tests that the database of an untrusted search is not opened, since Optuna unpickles what is in it."""

import json
import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from optuna.samplers import CmaEsSampler
from support.hostile import call_shell
from support.search_jobs import LR, WIDTH, run_search, states

from litlab.cli.resume import resume_study
from litlab.errors import UserError


def search(path: Path, trials: int) -> list[str]:
    return states(run_search(path, LR, WIDTH, trials=trials, sampler="cmaes"))


@pytest.fixture
def study(tmp_path: Path, mark: Path) -> Path:
    """Make a study whose database holds a hostile pickle in place of the state of CMA-ES."""
    path = tmp_path / "s"
    search(path, 2)
    with closing(sqlite3.connect(path / "search.db")) as database, database:
        row = (2, "cma:optimizer:0", json.dumps(pickle.dumps(call_shell(mark)).hex()))
        database.execute("insert into trial_system_attributes (trial_id, key, value_json) values (?, ?, ?)", row)
    return path


def test_an_untrusted_search_is_refused_and_nothing_is_executed(
    study: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_user:
        other_user.setenv("XDG_STATE_HOME", str(study.parent / "state"))
        with pytest.raises(UserError, match=r"study\.yaml is not signed by you"):
            search(study, 3)
        with pytest.raises(UserError, match=r"study\.yaml is not signed by you"):
            resume_study(study, [], ["litlab", "resume", str(study)])
    alone = study.parent / "alone"
    alone.mkdir()
    shutil.copy(study / "search.db", alone)
    with pytest.raises(UserError, match=r"holds other things \(search\.db\), but no study\.yaml"):
        search(alone, 3)
    assert not mark.exists()
    with pytest.raises(AttributeError):  # the same as one's own: Optuna unpickles it
        search(study, 3)
    assert mark.exists(), "harmless: the test shows nothing"


@pytest.mark.integrations
def test_a_search_of_ones_own_continues_with_what_cma_es_has_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search(tmp_path / "s", 10) == ["COMPLETE"] * 10
    restored = []
    restore = CmaEsSampler._restore_optimizer

    def record(self: CmaEsSampler, trials: list[object]) -> object:
        restored.append(restore(self, trials))  # type: ignore[arg-type]
        return restored[-1]

    monkeypatch.setattr(CmaEsSampler, "_restore_optimizer", record)
    assert search(tmp_path / "s", 12) == ["COMPLETE"] * 12
    assert restored[0] is not None
