"""The identity of a run is that of its experiment."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
from support.runs import compose_config

from litlab.config.identity import VOLATILE, identity
from litlab.config.tree import flatten, get, lies_under, put

CONFIG = compose_config("data=cifar10", "model=cnn", "trainer.accelerator=cpu", "+trainer.profiler=simple")
CONFIG["data"] |= {"storage": "memory", "path": "/photos"}  # which an image folder or a Hugging Face data set has
CONFIG["init_from"] = {"path": "/weights.ckpt", "sha256": "0" * 64}


def counts(key: str, *swept: str) -> bool:
    """Return whether changing a key changes the identity of a job whose study sweeps these keys."""
    before = deepcopy(CONFIG)
    before["study"]["swept"] = list(swept)
    after = deepcopy(before)
    put(after, key, "changed")
    return identity(after) != identity(before)


def test_each_volatile_key_is_in_a_config() -> None:
    assert [key for key in VOLATILE if get(CONFIG, key, VOLATILE) is VOLATILE] == []


@pytest.mark.parametrize("key", flatten(CONFIG))
def test_volatile_keys_do_not_count_and_all_others_do(key: str) -> None:
    assert counts(key) != lies_under(key, *VOLATILE)


@pytest.mark.parametrize("key", ["root", "path", "cache", "url", "storage"])
def test_where_a_data_module_of_the_users_own_reads_counts(key: str) -> None:
    """It has no fingerprint, and what it means by the key is not known."""
    identities = {identity(CONFIG | {"data": {"_target_": "my.Csv", key: value}}) for value in ("a.csv", "b.csv")}
    assert len(identities) == 2
    workers = {identity(CONFIG | {"data": {"_target_": "my.Csv", "num_workers": value}}) for value in (0, 1)}
    assert len(workers) == 1


@pytest.mark.parametrize(
    ("swept", "key", "expected"),
    [
        *((key, key, True) for key in VOLATILE if key != "study"),
        ("checkpoint.every_steps", "checkpoint.every_steps", True),
        ("checkpoint.every_steps", "checkpoint.every_minutes", False),
        ("data", "data.cache", True),
        ("data", "checkpoint.every_minutes", False),
        ("trainer", "trainer.devices", True),  # trainer=cpu and trainer=ddp are two experiments
        ("trainer", "checkpoint.every_minutes", False),
        ("trainer@trainer", "trainer.devices", True),
        ("trainer@trainer", "threads", False),
        ("experiment", "data.root", True),  # a group without a key of its own may set any key
        ("experiment", "trainer.devices", True),
        ("experiment", "threads", False),
        ("model", "data.root", False),
        ("init_from", "init_from.path", False),  # the weights are varied, wherever they are
        ("init_from", "init_from.sha256", True),
        ("experiment", "init_from.path", False),
    ],
)
def test_volatile_keys_count_if_they_are_swept(swept: str, key: str, expected: bool) -> None:
    assert counts(key, swept) == expected


def test_sweeping_keys_that_count_anyway_changes_nothing() -> None:
    """A single run and a job of a study can be the same experiment."""
    for study in ({"name": None, "swept": ["seed", "model", "optimizer.lr"]}, {"name": None}):
        assert identity(CONFIG | {"study": study}) == identity(CONFIG)


def test_missing_keys_and_the_order_of_lists_count_but_not_the_order_of_keys() -> None:
    missing, reordered = deepcopy(CONFIG), deepcopy(CONFIG)
    del missing["model"]["hidden"]
    reordered["model"]["hidden"].reverse()
    assert identity(CONFIG) not in (identity(missing), identity(reordered))
    backwards = dict(reversed(CONFIG.items()))
    backwards["data"] = dict(reversed(CONFIG["data"].items()))
    assert list(backwards) != list(CONFIG)
    assert identity(backwards) == identity(CONFIG)


def test_identity_is_the_same_in_another_process() -> None:
    script = """
import json, sys
from litlab.config.identity import identity
print(identity(json.load(sys.stdin)))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=json.dumps(CONFIG), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identity(CONFIG)
    assert len(identity(CONFIG)) == 64


def test_nan_is_the_same_as_nan_and_keys_may_be_numbers() -> None:
    def of(**model: object) -> str:
        return identity(CONFIG | {"model": {"_target_": "some.Net", **model}})

    assert of(x=float("nan")) == of(x=float("nan")) != of(x=0.0)
    assert of(weights={0: 1.0, 1: 3.0}) == of(weights={1: 3.0, 0: 1.0}) != of(weights={0: 3.0, 1: 1.0})
    assert len(of(parts=[{"a": 1, 0: 2, 0.5: 3}])) == 64
