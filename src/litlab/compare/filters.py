"""What `--filter` keeps: conditions on settings, such as `optimizer.lr<0.1`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litlab.compare.settings import parsed, text
from litlab.errors import UserError
from litlab.runs.difference import shown

_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|<|>|=)\s*([^<>=!\s].*?)\s*")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


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
            is_equal = setting is not None and setting in (self.value, text(parsed(self.value)))
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
