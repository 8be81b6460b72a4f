"""Property-based tests: every config is either accepted or refused with a UserError."""

import math
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from support.runs import TINY, compose_config
from support.thorough import examples

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.freeze import freeze
from litlab.config.identity import identity
from litlab.config.secrets import refuse_secret_arguments, resolve_secrets
from litlab.config.validate import validate
from litlab.errors import UserError

ODD_TEXTS = (
    "???", "auto", "", "${oc.env:HOME}", "${name}", "${", "~nobody/x", "\0", "\ud800", "\x85", "\u2028 x", "\ufeff",
    "1e5", "yes", "=", "0x1", "1:60", " a ", "a: b", "#", "litlab.models.cnn.CNN", "lightning.pytorch.Trainer",
    "torch.nn.Identity", "https://a:b@c", "null", "val/accuracy", "test/loss",
)  # fmt: skip
TEXT = st.text(max_size=12) | st.sampled_from(ODD_TEXTS)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 10**400, 2**63, True, math.nan, math.inf])
KEYS = TEXT | st.sampled_from(
    ["_target_", "_args_", "data", "trainer", "devices", "callbacks", "token", "format", "root", "strategy"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ODD = PLAIN | st.dictionaries(st.integers() | st.booleans() | st.none() | TEXT, PLAIN, max_size=3) | st.binary()


@cache
def valid() -> dict[str, Any]:
    return compose_config(*TINY, "trainer=ddp", "trainer.devices=2")


def places(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(config: dict[str, Any], place: tuple[Any, ...], value: Any, remove: bool) -> dict[str, Any]:
    config = deepcopy(config)
    node: Any = config
    for key in place[:-1]:
        node = node[key]
    if remove and isinstance(node, dict):
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return config


def accepted(config: Any) -> bool:
    """Return whether a config is valid; a valid one survives writing and reading."""
    try:
        validate(config)
    except UserError:
        return False
    assert len(identity(config)) == 64
    assert repr(from_yaml(to_yaml(config).encode().decode())) == repr(config)
    return True


@examples(60)
@given(st.data(), ODD, st.booleans(), st.booleans())
def test_any_value_in_any_place(data: st.DataObject, value: Any, remove: bool, foreign: bool) -> None:
    config = valid()
    for target in data.draw(st.sets(st.sampled_from(["data", "task", "trainer", "model"]))) if foreign else ():
        config = changed(config, (target, "_target_"), "some.Thing", False)
    place = data.draw(st.sampled_from(sorted(places(config), key=repr)))
    accepted(changed(config, place, value, remove))


@examples(60)
@given(ODD | st.dictionaries(KEYS, ODD, max_size=4))
@example([])
@example({"callbacks": [1]})
@example({"callbacks": {"a": {"_target_": []}}, "objective": {"metric": []}})
def test_any_dict(config: Any) -> None:
    assert not accepted(config)


@examples(60)
@given(st.data(), PLAIN)
def test_freezing_anything(data: st.DataObject, value: Any) -> None:
    place = data.draw(st.sampled_from(sorted(places(valid()), key=repr)))
    try:
        composed = OmegaConf.create(changed(valid(), place, value, False))
    except (OmegaConfBaseException, ValueError, RecursionError):
        return  # Hydra would have said so
    try:
        frozen = freeze(composed)
    except UserError:
        return
    assert repr(from_yaml(to_yaml(frozen))) == repr(frozen)


YAML = (
    "format: 2\n", "a: &x [1, 2]\n", "b: *x\n", "<<: *x\n", "- ", "? [1]\n: 2\n", "!!python/object:os.system {}",
    "{", "}", "!!timestamp x", "!!int x", "!!bool x", "!!float x", "!!binary 'x'", "!!set {a}", "!!omap [a: 1]",
    "d: 2024-13-45\n", "e: 2024-01-02\n", "f: .nan\n", "g: .inf\n", "1: 2\n", "null: 3\n", 'h: "\\ud800"\n',
    f"i: 0x{'f' * 5000}\n", f"j: {'9' * 5000}\n", "\0", "\x85", "|", ">", "%YAML 1.2\n", "---\n", "...\n",
    "k: 1:60:60\n", "l: 0o9\n", "=: 1\n",
)  # fmt: skip


@examples(80)
@given(st.text(max_size=80) | st.lists(st.sampled_from(YAML) | st.text(max_size=10), max_size=8).map("".join))
def test_any_text(text: str) -> None:
    for given_text in (text, "format: 2\n" + text):
        try:
            config = from_yaml(given_text)
        except UserError:
            continue
        assert repr(from_yaml(to_yaml(config))) == repr(config)
        identity(config)
        accepted(config)
        with suppress(UserError):
            resolve_secrets(config)


@examples(60)
@given(st.lists(st.text(max_size=30) | st.sampled_from(["a.token=[1,2]", "+x={a: {b: 1}}", "a=b=c", "=", "~", "a=${"])))
def test_any_command_line(arguments: list[str]) -> None:
    with suppress(UserError):
        refuse_secret_arguments(arguments)
