"""What `--filter` keeps: conditions on settings, such as `optimizer.lr<0.1`."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from litlab.compare.grouping import Alike, Value, column
from litlab.compare.hyperparameters import SEED, full_name, parsed, text
from litlab.errors import UserError
from litlab.runs.diff import shown

_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|<|>|=)\s*([^<>=!\s].*?)\s*")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SPACES = re.compile(r"\s*([][{},:])\s*")  # around what a list or a mapping is written with
_NUM_NAMED = 12  # values of a setting in a message


@dataclass(frozen=True)
class Condition:
    """`KEY OP VALUE`, each as it was typed."""

    key: str
    operator: str
    value: str

    @classmethod
    def parse(cls, typed: str) -> "Condition":
        """
        Raises:
            UserError: if it is none.
        """
        found = _CONDITION.fullmatch(typed)
        if found is None:
            raise UserError(
                f"--filter {typed}: expected KEY OPERATOR VALUE, with an operator of < <= > >= = !=, "
                "in quotes: --filter 'optimizer.lr<0.1'"
            )
        return cls(*found.groups())

    def holds(self, setting: str | None) -> bool:
        """Whether it does for a setting as a text; one that a run has not is equal to nothing, less than nothing.

        Raises:
            UserError: if the two have no order.
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
                    f"--filter {self.key}{self.operator}{self.value}: {shown(str(side))} is no number; "
                    f"{self.operator} compares numbers, use = or != for others"
                )
        return _ORDERS[self.operator](left, right)


def filtered(groups: Sequence[Alike], known: Sequence[str], typed: Sequence[str]) -> list[Alike]:
    """Groups with those of their runs of which all conditions hold, without those that have no run left.

    Args:
        known: all keys but the seed.
        typed: the conditions.

    Raises:
        UserError: if one is none, a key means no setting or several, or no run is left.
    """
    kept = [each.runs for each in groups]
    there: dict[str, list[str]] = {}
    for condition in map(Condition.parse, typed):
        key = full_name(condition.key, [*known, SEED], "--filter")
        values = column(key, groups).values
        seeds = [text(run.seed) for each in groups for run in each.runs]
        there[condition.key] = list(dict.fromkeys(seeds if key == SEED else (value or "absent" for value in values)))
        found = _as_typed(condition.value, key, groups, values)
        for place, runs in enumerate(kept):
            kept[place] = tuple(run for run in runs if condition.holds(text(run.seed) if key == SEED else found[place]))
    left = [replace(each, runs=runs) for each, runs in zip(groups, kept, strict=True) if runs]
    if not left:
        said = "; ".join(f"{shown(key)} is {_listed(values)}" for key, values in there.items())
        raise UserError(f"no run is left by --filter {shown(' '.join(typed))}; {said}")
    return left


def _as_typed(typed: str, key: str, groups: Sequence[Alike], values: Sequence[Value]) -> Sequence[Value]:
    """Values, as they were typed where that means them: a class goes by its name as a choice does, and case does not
    matter; unless one of the values is just what was typed."""
    if typed in values:
        return values
    wanted = typed.casefold()
    return [typed if wanted in _names(key, each, value) else value for each, value in zip(groups, values, strict=True)]


def _names(key: str, group: Alike, value: Value) -> set[str]:
    target = group.settings.get(f"{key}._target_")
    names = (value, group.choices.get(key), target, target and target.rpartition(".")[2])
    return {name.casefold() for name in names if name is not None}


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _NUM_NAMED} more" * (len(values) > _NUM_NAMED)
    return ", ".join(map(shown, values[:_NUM_NAMED])) + more
