"""Conditions of `--filter` on settings, such as `optimizer.lr<0.1`."""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from litlab.compare.data_model import Run
from litlab.compare.grouping import RunGroup, Value, setting_column, setting_keys
from litlab.compare.setting_names import FOLD, SEED, full_name, listed, parsed, text
from litlab.errors import UserError
from litlab.runs.terminal import format_value

_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|<|>|=)\s*([^<>=!\s].*?)\s*")
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SPACES = re.compile(r"\s*([][{},:])\s*")  # around the punctuation of lists and mappings
_NUM_LISTED = 12  # values of a setting in a message


@dataclass(frozen=True)
class Condition:
    """`KEY OPERATOR VALUE`, each as it was typed."""

    key: str
    operator: str
    value: str

    @classmethod
    def parse(cls, typed: str) -> "Condition":
        """Parse a condition.

        Raises:
            UserError: If it is not of that form.
        """
        parts = _CONDITION.fullmatch(typed)
        if parts is None:
            raise UserError(
                f"--filter {typed}: expected KEY OPERATOR VALUE, with an operator of < <= > >= = !=, "
                "in quotes: --filter 'optimizer.lr<0.1'"
            )
        return cls(*parts.groups())

    def holds(self, setting: str | None) -> bool:
        """Check a setting, given as a text; a missing setting fails every comparison except `!=`.

        Raises:
            UserError: If the two values have no order.
        """
        if self.operator in ("=", "!="):
            typed = _SPACES.sub(r"\1", self.value)
            is_equal = setting is not None and _SPACES.sub(r"\1", setting) in (typed, text(parsed(typed)))
            return is_equal == (self.operator == "=")
        if setting is None:
            return False
        left, right = parsed(setting), parsed(self.value)
        for side in (right, left):
            if isinstance(side, bool) or not isinstance(side, int | float):
                raise UserError(
                    f"--filter {self.key}{self.operator}{self.value}: {format_value(str(side))} is not a number; "
                    f"{self.operator} compares numbers, use = or != for others"
                )
        return bool(_ORDERS[self.operator](left, right))


def filter_runs(groups: Sequence[RunGroup], conditions: Sequence[str]) -> list[RunGroup]:
    """Keep the runs for which all conditions hold, without groups that have no run left.

    Args:
        groups: Groups of runs that differ in nothing but their seeds and folds.
        conditions: Conditions as they were typed.

    Raises:
        UserError: If a condition is malformed, a key means no setting or several, or no run is left.
    """
    kept = [group.runs for group in groups]
    has_folds = any(run.fold is not None for runs in kept for run in runs)
    keys = [*setting_keys(groups), SEED, *[FOLD] * has_folds]
    values_by_key: dict[str, list[str]] = {}
    for condition in map(Condition.parse, conditions):
        key = full_name(condition.key, keys, "--filter")
        if key == SEED or (key == FOLD and has_folds):
            numbers = {run.path: _number(run, key) for group in groups for run in group.runs}
            values_by_key[condition.key] = list(dict.fromkeys(numbers.values()))
            kept = [tuple(run for run in runs if condition.holds(numbers[run.path])) for runs in kept]
            continue
        values = setting_column(key, groups).values
        values_by_key[condition.key] = [value or "absent" for value in dict.fromkeys(values)]
        matched = _match_names(condition.value, key, groups, values)
        kept = [tuple(run for run in runs if condition.holds(value)) for runs, value in zip(kept, matched, strict=True)]
    left = [replace(group, runs=runs) for group, runs in zip(groups, kept, strict=True) if runs]
    if not left:
        values_text = "; ".join(
            f"{format_value(key)} is {listed(list(map(format_value, values)), _NUM_LISTED)}"
            for key, values in values_by_key.items()
        )
        raise UserError(f"no run is left by --filter {format_value(' '.join(conditions))}; {values_text}")
    return left


def _number(run: Run, key: str) -> str:
    """Return the seed or fold of a run as a text."""
    return text(run.seed if key == SEED else None if run.fold is None else run.fold.number)


def _match_names(typed: str, key: str, groups: Sequence[RunGroup], values: Sequence[Value]) -> Sequence[Value]:
    """Replace values by the typed text where it is another name of them, in upper or lower case.

    A class has its name, its dotted name and the name of its choice; an exact match of any value comes first.
    """
    if typed in values:
        return values
    matched: list[Value] = []
    for group, value in zip(groups, values, strict=True):
        target = group.settings.get(f"{key}._target_")
        names = (value, group.choices.get(key), target, target and target.rpartition(".")[2])
        is_match = typed.casefold() in {name.casefold() for name in names if name is not None}
        matched.append(typed if is_match else value)
    return matched
