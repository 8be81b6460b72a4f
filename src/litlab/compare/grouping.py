"""Runs that are the same experiment but for the seed: those with the same settings on the same data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litlab.compare.model import Run
from litlab.compare.settings import written
from litlab.config.identity import place


@dataclass(frozen=True)
class Alike:
    """Runs that only their seeds tell apart.

    Attributes:
        settings: as texts, by their full names.
        choices: what their study sweeps, by its place in the config: `model` -> `cnn`.
        data: fingerprint of their data; None if no run knows it.
    """

    settings: Mapping[str, str]
    choices: Mapping[str, str]
    data: str | None
    runs: tuple[Run, ...]


def alike(runs: Sequence[Run]) -> list[Alike]:
    """Groups in the order of their first runs; a run that doesn't know its data is with those of its settings."""
    by_settings: dict[tuple[tuple[str, str], ...], dict[str | None, list[Run]]] = {}
    for run in runs:
        key = tuple(sorted(written(run.settings).items()))
        by_settings.setdefault(key, {}).setdefault(run.data, []).append(run)
    groups = []
    for by_data in by_settings.values():
        known = [data for data in by_data if data is not None]
        if known and None in by_data:
            by_data[known[0]] += by_data.pop(None)
        groups += [_alike(data, members) for data, members in by_data.items()]
    return groups


def _alike(data: str | None, runs: Sequence[Run]) -> Alike:
    choices: dict[str, str] = {}
    for run in runs:
        for key, value in run.choices.items():
            choices.setdefault(place(key), value)
    return Alike(written(runs[0].settings), choices, data, tuple(runs))
