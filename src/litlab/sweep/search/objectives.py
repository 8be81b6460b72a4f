"""What a search goes by: which values of a run are its objectives, and what can be wrong with them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litlab.config.schema import SECTIONS, validation_metrics
from litlab.config.schema import Objective as Wanted
from litlab.config.suggestions import did_you_mean
from litlab.errors import UserError

OF_THE_RUN = ("parameters", "images_per_second", "seconds.training")  # of result.json, besides validation metrics


@dataclass(frozen=True)
class Objective:
    """A value of a run, and whether `max` or `min` is better."""

    metric: str
    mode: str

    @property
    def direction(self) -> str:
        return "maximize" if self.mode == "max" else "minimize"

    def value(self, result: Mapping[str, Any]) -> float | None:
        """The value in a result.json: of a metric, where the run was best if that is known. None if there is none."""
        group, _, key = self.metric.partition(".")
        if self.metric in OF_THE_RUN:
            found = result.get(group)
            found = found.get(key) if key and isinstance(found, dict) else found
        else:
            found = ((result.get("best") or {}) or (result.get("last") or {})).get(self.metric)
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def objectives_of(config: Mapping[str, Any], several: Sequence[Wanted] | None) -> list[Objective]:
    """What a search of such runs goes by.

    Raises:
        UserError: if these runs will not have such values.
    """
    if several is None and config.get("objective") is None:
        raise UserError(
            "objective=null: a search needs to know what is better: set objective.metric and objective.mode, "
            "or several in hydra.sweeper.objectives"
        )
    found = [Objective(each.metric, each.mode) for each in several or [Wanted(**config["objective"])]]
    ours = config["task"]["_target_"] in SECTIONS
    for each in found:
        if ours and each.metric not in (*validation_metrics(config["task"]), *OF_THE_RUN):
            raise UserError(_unknown(each.metric, (*validation_metrics(config["task"]), *OF_THE_RUN)))
    measured = [each.metric for each in found if each.metric not in OF_THE_RUN]
    data = config["data"]
    if measured and data["_target_"] in SECTIONS and data.get("val_size") == 0:
        raise UserError(f"data.val_size=0: without validation data there is no {measured[0]} to search by")
    return found


def unreported(objectives: Sequence[Objective], reported: Sequence[str]) -> str | None:
    """What to say of runs that don't have a metric which a search goes by; None if they have all."""
    missing = [each.metric for each in objectives if each.metric not in (*OF_THE_RUN, *reported)]
    if not missing:
        return None
    known = ", ".join(reported) or "no validation metric"
    return f"the objective {missing[0]} was not reported in validation; reported: {known}. No other job would have it"


def num_validations(config: Mapping[str, Any]) -> int | None:
    """How often a run validates until its end, if its config tells; not where validation goes by steps."""
    trainer = config["trainer"]
    epochs, every, within = (
        trainer.get(key) for key in ("max_epochs", "check_val_every_n_epoch", "val_check_interval")
    )
    if not isinstance(epochs, int) or epochs < 1 or trainer.get("max_steps", -1) not in (-1, None):
        return None
    if not isinstance(every, int) or not isinstance(within, float | None):
        return None
    return epochs // every * (int(1 / within) if within else 1) or None


def _unknown(metric: str, known: Sequence[str]) -> str:
    hint = f"{did_you_mean(metric, known)}; known: {', '.join(known)}"
    return f"hydra.sweeper.objectives: {metric} is no value of a run{hint}"
