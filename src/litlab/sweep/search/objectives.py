"""Objectives of a search: values of a run that are minimized or maximized."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litlab.config.schema import SECTIONS, validation_metrics
from litlab.config.schema import Objective as ObjectiveSettings
from litlab.config.suggestions import did_you_mean
from litlab.errors import UserError

RUN_VALUES = ("parameters", "images_per_second", "seconds.training")  # of result.json, besides validation metrics


@dataclass(frozen=True)
class Objective:
    """A value of a run to optimize.

    Attributes:
        metric: Name of a validation metric, or one of `RUN_VALUES`.
        mode: `max` or `min`.
    """

    metric: str
    mode: str

    @property
    def direction(self) -> str:
        """Direction in Optuna's words."""
        return "maximize" if self.mode == "max" else "minimize"

    def value(self, result: Mapping[str, Any]) -> float | None:
        """Look up the value in a result.json: of a metric, the best one if it is known. None if there is none."""
        group, _, key = self.metric.partition(".")
        if self.metric in RUN_VALUES:
            value = result.get(group)
            value = value.get(key) if key and isinstance(value, dict) else value
        else:
            value = (result.get("best") or result.get("last") or {}).get(self.metric)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def make_objectives(config: Mapping[str, Any], several: Sequence[ObjectiveSettings] | None) -> list[Objective]:
    """Make the objectives of a search.

    Args:
        config: Frozen config of a typical job.
        several: Objectives of `hydra.sweeper`; None to use that of the config.

    Raises:
        UserError: If such jobs will not have these values.
    """
    if several is None and config.get("objective") is None:
        raise UserError(
            "objective=null: a search needs to know what is better: set objective.metric and objective.mode, "
            "or several in hydra.sweeper.objectives"
        )
    settings = several or [ObjectiveSettings(**config["objective"])]
    objectives = [Objective(setting.metric, setting.mode) for setting in settings]
    known = (*validation_metrics(config["task"]), *RUN_VALUES)
    for objective in objectives:
        if config["task"]["_target_"] in SECTIONS and objective.metric not in known:
            hint = did_you_mean(objective.metric, known)
            raise UserError(
                f"hydra.sweeper.objectives: {objective.metric} is no value of a run{hint}; known: {', '.join(known)}"
            )
    metrics = [objective.metric for objective in objectives if objective.metric not in RUN_VALUES]
    data = config["data"]
    if metrics and data["_target_"] in SECTIONS and data.get("val_size") == 0:
        raise UserError(f"data.val_size=0: without validation data there is no {metrics[0]} to search by")
    return objectives


def missing_metric(objectives: Sequence[Objective], reported: Sequence[str]) -> str | None:
    """Return an error message if a run has not reported the metric of an objective, else None."""
    missing = [objective.metric for objective in objectives if objective.metric not in (*RUN_VALUES, *reported)]
    if not missing:
        return None
    known = ", ".join(reported) or "no validation metric"
    return f"the objective {missing[0]} was not reported in validation; reported: {known}. No other job would have it"


def num_validations(config: Mapping[str, Any]) -> int | None:
    """Compute the number of validations of a run from its config; None if that depends on the number of steps."""
    trainer = config["trainer"]
    epochs, every, interval = (
        trainer.get(key) for key in ("max_epochs", "check_val_every_n_epoch", "val_check_interval")
    )
    if not isinstance(epochs, int) or epochs < 1 or trainer.get("max_steps", -1) not in (-1, None):
        return None
    if not isinstance(every, int) or not isinstance(interval, float | None):
        return None
    return epochs // every * (int(1 / interval) if interval else 1) or None
