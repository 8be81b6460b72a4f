"""The names of the groups, and hints at names that are spelt alike. Imports nothing, so that --help is quick."""

import difflib
from collections.abc import Iterable

GROUPS = ("data", "model", "task", "optimizer", "schedule", "trainer")
GROUPS_OF_MANY = ("callbacks", "logger")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """A line that names an unknown key and the nearest known one."""
    known = list(known)
    parent = key.rpartition(".")[0]
    siblings = sorted(name for name in known if name.rpartition(".")[0] == parent)
    for candidates in (siblings, [name for name in known if name != parent]):
        if hint := nearest(key, candidates):
            return f"{key}: unknown key{hint}?"
    return f"{key}: unknown key; known here: {', '.join(siblings or known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is spelt like this one; empty if none is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}" if close else ""


def shown(value: object) -> str:
    """A value as the command line writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
