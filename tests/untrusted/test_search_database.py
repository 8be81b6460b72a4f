"""The database of a search is data: what Optuna would unpickle of it is not executed."""

import json
import pickle
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cmaes import CMA, CMAwM, SepCMA  # type: ignore[import-untyped]
from optuna.samplers import CmaEsSampler
from support.hostile import Touch
from support.search_jobs import LR, WIDTH, Machine, best_at, run_search

from litlab.errors import UserError
from litlab.sweep.search.unpickle import RestoringSampler

BOUNDS = np.array([[0.0, 1.0], [0.0, 1.0]])
OPTIMIZERS = [
    CMA(mean=np.full(2, 0.5), sigma=0.1, bounds=BOUNDS, lr_adapt=True),
    SepCMA(mean=np.full(2, 0.5), sigma=0.1, bounds=BOUNDS),
    CMAwM(mean=np.full(2, 0.5), sigma=0.1, bounds=BOUNDS, steps=np.array([0.0, 0.1])),
]


class Trial:
    """What the samplers look at of one."""

    def __init__(self, content: bytes) -> None:
        self.number = 0
        self.system_attrs = {"cma:optimizer:0": content.hex()[:40], "cma:optimizer:1": content.hex()[40:]}


def restored(sampler: CmaEsSampler, content: bytes) -> Any:
    return sampler._restore_optimizer([Trial(content)])  # type: ignore[list-item]


def asked(optimizer: Any) -> tuple[Any, Any]:
    """A point to tell, and one to try."""
    found = optimizer.ask()
    return found[::-1] if isinstance(optimizer, CMAwM) else (found, found)


def values(optimizer: Any) -> dict[str, Any]:
    found = {key: value for key, value in vars(optimizer).items() if key != "_rng"}
    return found | ({"_cma": values(found["_cma"])} if "_cma" in found else {})


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: type(each).__name__)
def test_what_was_learned_comes_back_as_it_was(optimizer: Any) -> None:
    for _ in range(3):
        content = pickle.dumps(optimizer)
        ours, theirs = restored(RestoringSampler(), content), restored(CmaEsSampler(), content)
        assert type(ours) is type(theirs)
        np.testing.assert_equal(values(ours), values(theirs))
        told = [asked(ours)[0] for _ in range(ours.population_size)]
        ours.tell([(each, float(sum(each))) for each in told])
        optimizer = ours


class Builds:
    """Its pickle calls NumPy with what is no plain number."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return np.dtype, self.arguments


def hostile(mark: Path) -> Iterable[bytes]:
    yield pickle.dumps(Touch(mark))
    yield pickle.dumps({"optimizer": [Touch(mark)]}, protocol=0)
    optimizer = pickle.loads(pickle.dumps(OPTIMIZERS[0]))
    optimizer._sigma = Touch(mark)
    yield pickle.dumps(optimizer)


def test_a_hostile_pickle_is_refused(mark: Path) -> None:
    for content in hostile(mark):
        with pytest.raises(UserError, match=r"was not written by litlab \(it asks for '.*system', which no optimizer"):
            restored(RestoringSampler(), content)
        assert not mark.exists()
        restored(CmaEsSampler(), content)
        assert mark.exists(), "harmless: the test shows nothing"
        mark.unlink()
    for content in (pickle.dumps(5), b"", b"\x80", pickle.dumps(Builds("O", False, True)), pickle.dumps(np.zeros(2))):
        with pytest.raises(UserError, match="was not written by litlab"):
            restored(RestoringSampler(), content)


def test_a_search_whose_database_was_exchanged_executes_nothing(tmp_path: Path, mark: Path) -> None:
    def search(trials: int) -> None:
        run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=trials, sampler="cmaes")

    search(2)
    with closing(sqlite3.connect(tmp_path / "s" / "search.db")) as database, database:
        row = (2, "cma:optimizer:0", json.dumps(pickle.dumps(Touch(mark)).hex()))
        database.execute("insert into trial_system_attributes (trial_id, key, value_json) values (?, ?, ?)", row)
    with pytest.raises(UserError, match="bring back the database as it was"):
        search(3)
    assert not mark.exists()
