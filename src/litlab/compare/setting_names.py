"""Settings of a run: leaves of its config, their texts, and their short names."""

import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from litlab.compare.data_model import Run
from litlab.config.identity import volatile_keys
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.terminal import format_value

SEED = "seed"
FOLD, FOLDS = "data.fold", "data.folds"  # number of a fold, and of all folds
_DATA = "data._target_"
DIGITS = 5  # significant ones of a setting in a table
_MAX_DIGITS = 17  # a float has no more
_NUMBER = re.compile(r"(?<![^\[,])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![^\],])")  # a whole text, or an item of a list
_CONSTANTS = {"true": True, "false": False, "null": None}


def comparable(runs: Sequence[Run], swept: Collection[str]) -> list[Run]:
    """Keep the settings that can tell groups apart.

    Removed are the seed, keys that follow it, as `data.seed: ${seed}` does, and keys that are volatile in their run.

    Args:
        runs: Runs with all leaves of their configs as settings.
        swept: Places in the config that a study sweeps; these are kept although they may be volatile.
    """
    keys = {key for run in runs for key in run.settings}
    targets = {str(run.settings.get(_DATA)) for run in runs}
    without_effect = {
        target: {key for key in keys if lies_under(key, *volatile_keys(target)) and not lies_under(key, *swept)}
        for target in targets
    }
    by_study: dict[Path | None, list[Run]] = {}
    for run in runs:
        by_study.setdefault(run.study, []).append(run)
    dropped = {study: {"format", SEED, *followers} for study, followers in _seed_followers(by_study).items()}
    return [
        replace(
            run,
            settings={
                key: value
                for key, value in run.settings.items()
                if key not in dropped[run.study] and key not in without_effect[str(run.settings.get(_DATA))]
            },
        )
        for run in runs
    ]


def _seed_followers(by_study: Mapping[Path | None, Sequence[Run]]) -> dict[Path | None, set[str]]:
    """Return the keys of each study that end in `seed` and equal it in all runs.

    If all runs of a study have the same seed, this may be chance: then a key must not differ from the seed in a study
    of several seeds.
    """
    names = {key for runs in by_study.values() for run in runs for key in run.settings if key.endswith(SEED)}
    equal: dict[Path | None, set[str]] = {}
    refuted: set[str] = set()
    num_seeds = {study: len({run.seed for run in runs}) for study, runs in by_study.items()}

    def equals_seed(run: Run, name: str) -> bool:
        value = run.settings.get(name, run.seed)
        return type(value) is int and value == run.seed

    for study, runs in by_study.items():
        present = {name for name in names if any(name in run.settings for run in runs)}
        equal[study] = {name for name in present if all(equals_seed(run, name) for run in runs)}
        if num_seeds[study] > 1:
            refuted |= present - equal[study]
    return {study: keys if num_seeds[study] > 1 else keys - refuted for study, keys in equal.items()}


def text(value: Any) -> str:
    """Format a setting for people: `0.1`, `[16,32]`; two values have one text only if they are the same setting."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{text(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return repr(value) if _needs_quotes(value) else value
    return str(value)


@lru_cache(maxsize=4096)  # a thousand runs have the same ones
def _needs_quotes(value: str) -> bool:
    """Return True if a text would be read as a number, a truth value, null, or nothing."""
    return parsed(value) != value or value != value.strip() or not value


def parsed(typed: str) -> Any:
    """Read a typed value: a number, true, false, null, or a text."""
    if typed in _CONSTANTS:
        return _CONSTANTS[typed]
    for number in (int, float):
        try:
            return number(typed)
        except ValueError:
            continue
    return typed


def listed(texts: Sequence[str], limit: int) -> str:
    """Join the first texts: `a, b and 3 more`."""
    return ", ".join(texts[:limit]) + f" and {len(texts) - limit} more" * (len(texts) > limit)


def numbered(name: str, taken: Container[str]) -> str:
    """Return the name, or `NAME (2)` if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def shorten(texts: Iterable[str | None]) -> dict[str, str]:
    """Map the texts of a setting to five significant digits, or to as many as keep them different; never integers."""
    values = {value for value in texts if value is not None}
    for digits in range(DIGITS, _MAX_DIGITS):
        short = {value: _rounded(value, digits) for value in values}
        if len(set(short.values())) == len(values):
            return short
    return {value: value for value in values}


def _rounded(value: str, digits: int) -> str:
    def short(match: re.Match[str]) -> str:
        rounded = f"{float(match[0]):.{digits}g}" if "." in match[0] else match[0]
        return min(match[0], rounded, key=len)  # 123456.7 stays as it is

    return _NUMBER.sub(short, value) if value.startswith("[") or _NUMBER.fullmatch(value) else value


def short_names(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """Map dotted names to their shortest unambiguous ends: `optimizer.lr` -> `lr`."""
    counts = Counter(end for key in {*among, *keys} for end in _ends(key))
    return {key: next((end for end in reversed(_ends(key)) if counts[end] == 1), key) for key in keys}


def _ends(key: str) -> list[str]:
    """Return `a.b.c`, `b.c`, `c`."""
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def full_name(name: str, keys: Collection[str], option: str) -> str:
    """Return the key that a name or the end of one means.

    Args:
        name: Name as it was typed.
        keys: All keys.
        option: Command line option, for the message.

    Raises:
        UserError: If there is none, or several.
    """
    if name in keys:
        return name
    candidates = sorted(key for key in keys if key.endswith(f".{name}"))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(map(format_value, candidates[:8]))
        raise UserError(f"{option} {format_value(name)} is ambiguous: name one of {names}")
    ends = {end: key for key in keys for end in _ends(key)}
    nearest = [format_value(ends[end]) for end in get_close_matches(name, ends, n=1)]
    hint = f"did you mean {nearest[0]}?" if nearest else "name one of the config, such as optimizer.lr"
    raise UserError(f"{option} {format_value(name)}: no run has such a setting; {hint}")
