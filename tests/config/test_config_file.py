"""config.yaml is written fast, read back unchanged, refused if hostile; its identity is that of the experiment."""

import subprocess
import sys
import time
from copy import deepcopy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import TINY, compose_config

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.identity import VOLATILE, identity
from litlab.config.tree import flatten, get, lies_under, put
from litlab.errors import UserError

CONFIG = compose_config("data=cifar10", "model=cnn", "trainer.accelerator=cpu", "+trainer.profiler=simple")
CONFIG["data"] |= {"storage": "memory", "num_workers": 2}  # which an image folder has
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=150),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["format: 2", *lines])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("format: 1\nseed: 0\n", "its format is 1: this version of litlab reads format 2 only"),
        ("format: null\n", "its format is None"),
        ("seed: 0\n", "not a config frozen by litlab"),
        ("- 1\n", "not a config frozen by litlab"),
        ("", "not a config frozen by litlab"),
        ("seed: [1\n", "not valid YAML"),
    ],
)
def test_other_formats_are_refused(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        from_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        laughs(9),
        "format: 2\na: &a [*a]",
        "format: 2\na: " + "[" * 3000 + "]" * 3000,
        "format: 2\na: " + "{a: " * 500 + "}" * 500,
        "format: 2\na: '" + "x" * 10_000_000 + "'",
        "format: 2\n1: 2",
        "format: 2\na: 2024-01-02",
        "format: true",
        "format: 1.0",
    ],
)
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        from_yaml(text)


def test_yaml_aliases_are_read() -> None:
    assert from_yaml("format: 2\na: &x [1]\nb: *x") == {"format": 2, "a": [1], "b": [1]}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(alphabet="abc_.", max_size=8), VALUES, min_size=1, max_size=4))
def test_libyaml_writes_the_same_bytes(values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not any(character in text for character in "\x85\u2028\u2029"):
        assert to_yaml(values) == text


def test_a_real_config_is_written_by_libyaml() -> None:
    config = compose_config(*TINY)
    assert to_yaml(config) == yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert from_yaml(to_yaml(config)) == config
    started = time.process_time()
    for _ in range(10):
        to_yaml(config)
    ours = time.process_time() - started
    for _ in range(10):
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert ours < (time.process_time() - started - ours) / 2


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


@pytest.mark.parametrize("path", [key for key in VOLATILE if key != "study"])
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
        "import sys; from litlab.config.config_file import from_yaml\nfrom litlab.config.identity import identity\n"
    )
    command = [sys.executable, "-c", script + "print(identity(from_yaml(sys.stdin.read())))"]
    done = subprocess.run(command, input=to_yaml(CONFIG), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identity(CONFIG)
    assert len(identity(CONFIG)) == 64
