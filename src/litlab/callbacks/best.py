"""The best value of the objective so far."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litlab.errors import UserError


@dataclass
class Best:
    """Attributes:
    metric, mode: the objective: what is compared, and whether `max` or `min` is better.
    value, step: the best so far, the first of equals, and the optimizer step it was measured at; None before it.
    """

    metric: str
    mode: str
    value: float | None = None
    step: int | None = None

    def improved(self, measured: Mapping[str, Any], step: int) -> bool:
        """Take in a validation's values, and tell whether it is the best; one that is no number never is.

        Raises:
            UserError: if the metric is not among them.
        """
        if self.metric not in measured:
            raise UserError(
                f"objective.metric={self.metric}: was not logged in validation; "
                f"logged: {', '.join(measured) or 'nothing'}"
            )
        value = float(measured[self.metric])
        if math.isnan(value):
            return False
        better = self.value is None or (value > self.value if self.mode == "max" else value < self.value)
        if better:
            self.value, self.step = value, step
        return better

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "step": self.step}

    def set_state(self, state: dict[str, Any]) -> None:
        self.value, self.step = state["value"], state["step"]
