"""The groups that are compared: which runs, under which name, in which columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from litlab.compare.columns import Column, column, fingerprints, keys_of, leaves_of, varying_columns
from litlab.compare.digits import shortened
from litlab.compare.filters import filtered
from litlab.compare.grouping import Alike, alike
from litlab.compare.model import Run
from litlab.compare.settings import SEED, full_name, short_names
from litlab.errors import UserError
from litlab.runs.difference import shown

ALL = "all runs"
_NUM_NAMED = 5  # values of a setting in a note


@dataclass(frozen=True)
class Part:
    """Runs that only their seeds tell apart; `others` are the settings that vary and that --group leaves out."""

    others: tuple[str | None, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Members:
    """A group to be: its settings by their labels, and its runs in whatever state; several parts only by --group."""

    name: str
    settings: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for part in self.parts for run in part.runs)


@dataclass(frozen=True)
class Formed:
    """
    Attributes:
        keys: label -> full name of the key, in the order of the columns.
        notes: what was left out, and what is averaged over.
    """

    keys: dict[str, str]
    members: list[Members]
    notes: list[str]


def form(runs: Sequence[Run], filters: Sequence[str], keys: Sequence[str] | None) -> Formed:
    """
    Args:
        filters: conditions as they were typed, all of which hold for what is kept.
        keys: names of the settings that alone tell groups apart; None for all that vary.

    Raises:
        UserError: if a name means no setting or several, or no run is left.
    """
    every = alike(runs)
    known = keys_of(every)
    groups = filtered(every, known, filters)
    num_left_out = len(runs) - sum(len(each.runs) for each in groups)
    notes = [f"--filter leaves out {num_left_out} of {len(runs)} runs"] * (num_left_out > 0)
    if len({each.data for each in groups if each.data}) > 1:
        notes.append("not all of the runs had the same data: the fingerprints of their images differ")
    others: list[Column] = []
    if keys is None:
        columns = _telling_apart(groups)
    else:
        if SEED in keys:
            raise UserError("--group seed: seeds are what a group is averaged over; name the settings that make groups")
        columns = [column(key, groups) for key in dict.fromkeys(full_name(key, known, "--group") for key in keys)]
        others = [each for each in varying_columns(groups) if each.key not in {each.key for each in columns}]
    names = short_names([each.key for each in columns], [*known, *leaves_of(every), SEED])
    labels = {key: shown(name) for key, name in names.items()}
    members = _members(groups, columns, others, labels)
    notes += _averaged(groups, others, members)
    return Formed({labels[each.key]: each.key for each in columns}, members, notes)


def _telling_apart(groups: Sequence[Alike]) -> list[Column]:
    """What varies; the fingerprint of the data, where there is nothing else."""
    columns = varying_columns(groups)
    rows = set(zip(*(each.values for each in columns), strict=True)) if columns else {()}
    data = fingerprints(groups)
    return [*columns, data] if len(rows) < len(groups) and data.varies else columns


def _averaged(groups: Sequence[Alike], others: Sequence[Column], members: Sequence[Members]) -> list[str]:
    """What --group leaves out although it varies, and whether that is the same in all groups."""
    if not others:
        return []
    labels = short_names([each.key for each in others], leaves_of(groups))
    said = []
    for each in others:
        short = shortened(each.values)
        values = ["absent" if value is None else shown(short[value]) for value in dict.fromkeys(each.values)]
        more = f" and {len(values) - _NUM_NAMED} more" * (len(values) > _NUM_NAMED)
        said.append(f"{shown(labels[each.key])} ({', '.join(values[:_NUM_NAMED])}{more})")
    notes = [f"averaged over {', '.join(said)} for each seed, and then over seeds, which n and intervals count"]
    if len({frozenset(_finished(each)) for each in members}) > 1:
        notes.append("the groups are not averaged over the same settings: what tells them apart may be those")
    return notes


def _finished(members: Members) -> list[tuple[str | None, ...]]:
    """The settings that are put together, of which there is a run that is done."""
    return [part.others for part in members.parts if any(run.word == "done" for run in part.runs)]


def _members(
    groups: Sequence[Alike], columns: Sequence[Column], others: Sequence[Column], labels: dict[str, str]
) -> list[Members]:
    """Groups that are the same in all columns become one; names are told apart whatever the settings hold."""
    merged: dict[tuple[str | None, ...], list[Part]] = {}
    for place, group in enumerate(groups):
        row, rest = (tuple(each.values[place] for each in found) for found in (columns, others))
        merged.setdefault(row, []).append(Part(rest, group.runs))
    names: Counter[str] = Counter()
    short = {each.key: shortened(each.values) for each in columns}
    members = []
    for row, parts in merged.items():
        found = [(each.key, value) for each, value in zip(columns, row, strict=True) if value is not None]
        settings = {labels[key]: shown(value) for key, value in found}
        name = " ".join(f"{labels[key]}={shown(short[key][value])}" for key, value in found) or ALL
        names[name] += 1
        members.append(Members(name if names[name] == 1 else f"{name} ({names[name]})", settings, tuple(parts)))
    return members
