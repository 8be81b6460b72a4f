"""The settings of a run: the leaves of its config, how they are written, and what people call them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from litlab.compare.model import Run
from litlab.config.freeze import VOLATILE
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.diff import shown

SEED = "seed"
_NO_SETTINGS = ("format", SEED)


def comparable(runs: Sequence[Run], swept: Collection[str]) -> list[Run]:
    """Runs with those of their settings that can tell groups apart.

    Left out are the seed and what follows it, as `data.seed: ${seed}` does, and the volatile keys.

    Args:
        runs: with all leaves of their configs as settings.
        swept: places in the config that some study sweeps, and which count for that, volatile or not.
    """
    names = {key for run in runs for key in run.settings}
    without_effect = {key for key in names if lies_under(key, *VOLATILE) and not lies_under(key, *swept)}
    by_study: dict[Path | None, list[Run]] = {}
    for run in runs:
        by_study.setdefault(run.study, []).append(run)
    dropped = {study: {*_NO_SETTINGS, *without_effect, *followers} for study, followers in _followers(by_study).items()}
    return [
        replace(run, settings={key: value for key, value in run.settings.items() if key not in dropped[run.study]})
        for run in runs
    ]


def _followers(by_study: Mapping[Path | None, Sequence[Run]]) -> dict[Path | None, set[str]]:
    """What follows the seed in each study: keys that end in `seed` and equal it in all runs.

    Where all runs have the same seed, that may be chance: then it follows unless it doesn't in another study.
    """
    names = {key for runs in by_study.values() for run in runs for key in run.settings if key.endswith(SEED)}
    equal: dict[Path | None, set[str]] = {}
    against: set[str] = set()
    for study, runs in by_study.items():
        here = {name for name in names if any(name in run.settings for run in runs)}
        equal[study] = {name for name in here if all(_follows(run, name) for run in runs)}
        if len({run.seed for run in runs}) > 1:
            against |= here - equal[study]
    return {
        study: equal[study] if len({run.seed for run in runs}) > 1 else equal[study] - against
        for study, runs in by_study.items()
    }


def _follows(run: Run, name: str) -> bool:
    value = run.settings.get(name, run.seed)
    return type(value) is int and value == run.seed


def text(value: Any) -> str:
    """A setting as people read it: `0.1`, `[16,32]`; two values have one text only if they are the same setting."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{text(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return repr(value) if _reads_as_another(value) else value
    return str(value)


@lru_cache(maxsize=4096)  # a thousand runs have the same ones
def _reads_as_another(value: str) -> bool:
    """Whether a text would be taken for a number, a truth value, null, or nothing."""
    return parsed(value) != value or value != value.strip() or not value


def parsed(typed: str) -> Any:
    """What somebody means who types this: a number, true, false, null, or a text."""
    words = {"true": True, "false": False, "null": None}
    if typed in words:
        return words[typed]
    for kind in (int, float):
        try:
            return kind(typed)
        except ValueError:
            continue
    return typed


def short_names(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """The shortest ends of dotted names that say which is meant: `optimizer.lr` -> `lr` if no other ends in it."""
    counts = Counter(end for key in {*among, *keys} for end in _ends(key))
    return {key: next((end for end in reversed(_ends(key)) if counts[end] == 1), key) for key in keys}


def _ends(key: str) -> list[str]:
    """`a.b.c`, `b.c`, `c`."""
    parts = key.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]


def full_name(name: str, known: Collection[str], option: str) -> str:
    """The key that a name or the end of one means.

    Args:
        name: as it was typed.
        known: all keys.
        option: of the command line, for the message.

    Raises:
        UserError: if there is none, or several.
    """
    if name in known:
        return name
    meant = sorted(key for key in known if key.endswith(f".{name}"))
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UserError(f"{option} {shown(name)}: which one is meant? {', '.join(map(shown, meant[:8]))}")
    ends = {end: key for key in known for end in _ends(key)}
    nearest = get_close_matches(name, ends, n=1)
    hint = f"did you mean {shown(ends[nearest[0]])}?" if nearest else "name one of the config, such as optimizer.lr"
    raise UserError(f"{option} {shown(name)}: no run has such a setting; {hint}")


def written(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as texts."""
    return {key: text(value) for key, value in values.items()}
