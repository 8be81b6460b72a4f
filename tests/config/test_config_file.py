"""config.yaml is written fast, read back unchanged, and refused if hostile."""

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import TINY, compose_config

from litlab.config.config_file import from_yaml, to_yaml
from litlab.errors import UserError

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
    seconds = time.process_time() - started
    for _ in range(10):
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    assert seconds < (time.process_time() - started - seconds) / 2
