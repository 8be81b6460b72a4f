"""Suggestions for misspelled names in error messages."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X` for the known name that is spelled most alike; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}" if close else ""


def unknown_key_message(key: str, known: Iterable[str]) -> str:
    """Return an error message for an unknown dotted key that suggests the nearest known one.

    Args:
        key: Unknown key.
        known: All known keys. Those with the same parent are preferred.
    """
    known = list(known)
    parent = key.rpartition(".")[0]
    siblings = sorted(name for name in known if name.rpartition(".")[0] == parent)
    for candidates in (siblings, [name for name in known if name != parent]):
        if hint := did_you_mean(key, candidates):
            return f"{key}: unknown key{hint}?"
    return f"{key}: unknown key; known here: {', '.join(siblings or known)}"
