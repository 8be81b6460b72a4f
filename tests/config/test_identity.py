"""Identity: runs are the same experiment if they compute the same."""

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import yaml
from support.runs import TINY, compose_config

from litlab.config.config_file import VOLATILE, identity, to_yaml
from litlab.config.tree import flatten, get, lies_under, put

CONFIG = compose_config("data=cifar10", "model=cnn", "trainer.accelerator=cpu", "+trainer.profiler=simple")
CONFIG["data"] |= {"storage": "memory", "num_workers": 2}  # which an image folder has


def changed(key: str) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    put(config, key, "changed")
    return config


def test_each_volatile_key_is_in_a_config() -> None:
    assert [key for key in VOLATILE if get(CONFIG, key, VOLATILE) is VOLATILE] == []


@pytest.mark.parametrize("path", flatten(CONFIG))
def test_volatile_keys_do_not_count_and_all_others_do(path: str) -> None:
    assert (identity(changed(path)) == identity(CONFIG)) == lies_under(path, *VOLATILE)


def sweeping(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return config | {"study": {"name": None, "swept": list(keys)}}


@pytest.mark.parametrize("path", [each for each in VOLATILE if each != "study"])
def test_a_volatile_key_that_is_swept_counts(path: str) -> None:
    assert identity(sweeping(changed(path), path)) != identity(sweeping(CONFIG, path))


@pytest.mark.parametrize("swept", ["trainer", "checkpoint.every_steps", "data"])
def test_a_swept_node_or_group_counts(swept: str) -> None:
    """If `trainer` is swept, trainer=cpu and trainer=ddp are two experiments; other volatile keys still don't count."""
    path = {"trainer": "trainer.devices", "data": "data.cache"}.get(swept, swept)
    assert identity(sweeping(changed(path), swept)) != identity(sweeping(CONFIG, swept))
    assert identity(sweeping(changed("checkpoint.every_minutes"), swept)) == identity(sweeping(CONFIG, swept))


@pytest.mark.parametrize(
    ("swept", "path"),
    [("experiment", "data.root"), ("experiment", "trainer.devices"), ("trainer@trainer", "trainer.devices")],
)
def test_a_swept_group_counts_at_the_keys_that_it_sets(swept: str, path: str) -> None:
    """A group without a key of its own, such as `experiment`, may set any key."""
    assert identity(sweeping(changed(path), swept)) != identity(sweeping(CONFIG, swept))
    assert identity(sweeping(changed("threads"), swept)) == identity(sweeping(CONFIG, swept))
    assert identity(sweeping(changed("data.root"), "model")) == identity(sweeping(CONFIG, "model"))


def test_sweeping_keys_that_count_anyway_changes_nothing() -> None:
    """A single run and a job of a study can be the same experiment."""
    assert identity(sweeping(CONFIG, "seed", "model", "optimizer.lr")) == identity(CONFIG)
    assert identity(CONFIG | {"study": {"name": None}}) == identity(CONFIG)


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
    script = (
        "import sys; from litlab.config.config_file import identity; from litlab.config.config_file import from_yaml\n"
    )
    script += "print(identity(from_yaml(sys.stdin.read())))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=to_yaml(CONFIG), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identity(CONFIG)
    assert len(identity(CONFIG)) == 64


def test_identity_survives_writing_and_reading() -> None:
    config = compose_config(*TINY)
    assert identity(yaml.safe_load(to_yaml(config))) == identity(config)
