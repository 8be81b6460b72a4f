"""Syntax of the changes of an ablation: names, lists of overrides, and the quotes that Hydra's grammar needs."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from litlab.config.tree import bare_key, lies_under

ABLATION = "study.ablation"  # names of the changes in a job: [] is the full recipe, null is no ablation
KEY = "study.ablate"
FULL, ALL = "full", "all"
DELETED = "~"
Changes = Mapping[str, Sequence[str]]  # name -> overrides
Names = tuple[str, ...]
_OVERRIDES_BY_NAME = (KEY, "hydra.sweeper.settings")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_RESERVED = (FULL, ALL, "true", "false", "null", "nan", "inf")  # the last five are no texts in Hydra's grammar
_EXAMPLE = "{no_flip: [data.flip=false]}"
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_ITEM = re.compile(r"(?P<before>[\[,]\s*)(?P<key>[\w+~][\w.+~/@-]*=)")


def check_changes(value: Any) -> Any:
    """Return the value of `study.ablate`.

    Raises:
        ValueError: If it is not of the form name -> overrides.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"expected changes by name, as in {_EXAMPLE}")
    for name, overrides in value.items():
        if not is_plain_name(name):
            raise ValueError(
                f"{name!r} is no name for a change: expected letters, digits and . _ -, a letter first, and not one "
                f"of {', '.join(_RESERVED)}"
            )
        if overrides is None:
            continue
        if not isinstance(overrides, list) or not all(map(_is_override, overrides)):
            raise ValueError(f"{name}: expected a list of overrides KEY=VALUE, as in {_EXAMPLE}")
        if not overrides:
            raise ValueError(f"{name}: has no override; name what it changes, as in {_EXAMPLE}")
    return value


def _is_override(line: object) -> bool:
    return isinstance(line, str) and ("=" in line or line.startswith(DELETED))


def is_plain_name(name: object) -> bool:
    """Return True for a text that may name a change."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name.lower() not in _RESERVED


def variant_name(names: Sequence[str], changes: Collection[str]) -> str:
    """Return the name of the job with some of the changes: `full`, `no_flip`, `no_flip+no_crop` or `all`."""
    if not names:
        return FULL
    return ALL if len(names) > 1 and {*names} >= {*changes} else "+".join(names)


def names_in(text: str) -> Names:
    """Return the names in the value of `study.ablation` as a text: `[no_flip,no_crop]`."""
    return tuple(filter(None, text.strip("[]").split(",")))


def quote_changes(argument: str) -> str:
    """Quote the overrides in an argument `study.ablate={no_flip:[data.flip=false]}`, as Hydra's grammar needs it.

    The settings of decide have the same form. Other arguments, and overrides that are quoted already, stay as they are.
    """
    key, separator, value = argument.partition("=")
    if not separator or not lies_under(bare_key(key), *_OVERRIDES_BY_NAME):
        return argument
    quoted, position = "", 0
    while position < len(value):
        token = _QUOTED.match(value, position) or _ITEM.match(value, position)
        end = token.end() if token else position + 1
        if token is None or token.re is _QUOTED:
            quoted += value[position:end]
        else:
            end = _end_of_item(value, end)
            quote = '"' if "'" in value[position:end] else "'"
            quoted += f"{token['before']}{quote}{value[token.start('key') : end].rstrip()}{quote}"
        position = end
    return f"{key}={quoted}"


def _end_of_item(text: str, position: int) -> int:
    """Return the index of the comma or bracket that ends an item of a list."""
    depth = 0
    while position < len(text):
        if depth == 0 and text[position] in ",]":
            break
        depth += (text[position] in "[{(") - (text[position] in "]})")
        position = string.end() if (string := _QUOTED.match(text, position)) else position + 1
    return position
