"""Settings of a search: Optuna's sampler, its pruner, the values of a run to optimize."""

import hashlib
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from litlab.config.schema import SECTIONS, Count, CountOrZero, Objective, Section, validation_metrics
from litlab.config.search_space import Numbers, Space
from litlab.config.tree import did_you_mean, format_value
from litlab.config.validate import check_settings, find_missing_validation
from litlab.errors import UserError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SECTION = "hydra.sweeper"
RUN_VALUES = ("parameters", "images_per_second", "seconds.training")  # of result.json, besides validation metrics
SAMPLERS = {"tpe": "TPESampler", "cmaes": "CmaEsSampler", "random": "RandomSampler", "quasi_random": "QMCSampler"}
PRUNERS = {"median": "MedianPruner", "successive_halving": "SuccessiveHalvingPruner", "hyperband": "HyperbandPruner"}
# Arguments that a config can't hold, that litlab sets, or that only switch warnings.
_NOT_OPTIONS = (
    "self", "seed", "gamma", "weights", "constraints_func", "independent_sampler", "source_trials",
    "warn_independent_sampling", "warn_asynchronous_seeding",
)  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
}  # fmt: skip


class SearchSettings(Section):
    """Settings of `hydra.sweeper` for a search, besides its space; conf/hydra/sweeper/search.yaml explains them."""

    trials: Count
    sampler: Literal["tpe", "cmaes", "random", "quasi_random"]
    sampler_options: dict[str, Any]
    pruner: Literal["median", "successive_halving", "hyperband"] | None
    pruner_options: dict[str, Any]
    seed: CountOrZero
    objectives: Annotated[list[Objective], Field(min_length=2)] | None
    storage: str | None


def read_settings(values: Mapping[str, Any]) -> SearchSettings:
    """Validate the settings, including the options of the sampler and pruner.

    Raises:
        UserError: With a line for each setting that is unknown or out of range.
    """
    check_settings(SECTION, dict(values), SearchSettings)
    settings = SearchSettings.model_validate(dict(values))
    problems = _option_problems("sampler", SAMPLERS[settings.sampler], settings.sampler_options)
    if settings.pruner is not None:
        problems += _option_problems("pruner", PRUNERS[settings.pruner], settings.pruner_options)
    elif settings.pruner_options:
        problems.append(f"{SECTION}.pruner_options: there is no pruner to take them; choose {SECTION}.pruner")
    if settings.objectives is not None and settings.pruner is not None:
        problems.append(
            f"{SECTION}.pruner={settings.pruner}: can't be combined with several objectives; set it to null"
        )
    if settings.objectives is not None and settings.sampler == "cmaes":
        problems.append(f"{SECTION}.sampler=cmaes: supports one objective only; use tpe for several")
    if problems:
        raise UserError("\n".join(problems))
    return settings


def check_sampler(settings: SearchSettings, space: Space) -> None:
    """Check that the sampler can handle the space.

    Raises:
        UserError: If it can't.
    """
    count = sum(isinstance(dimension.domain, Numbers) and dimension.condition is None for dimension in space.dimensions)
    if settings.sampler == "cmaes" and count < 2:
        raise UserError(
            f"{SECTION}.sampler=cmaes: needs two or more dimensions of numbers, this space has {count}; use tpe"
        )


def make_sampler(settings: SearchSettings, num_trials: int) -> "BaseSampler":
    """Make Optuna's sampler for the trials after the first `num_trials`, which the same seed would repeat.

    Raises:
        UserError: If Optuna refuses an option.
    """
    options: dict[str, Any] = dict(settings.sampler_options)
    if settings.sampler == "quasi_random":  # a sequence that continues by itself
        options = {"scramble": True, "seed": settings.seed % 2**32} | options
    else:
        digest = hashlib.sha256(f"{settings.seed} {num_trials}".encode()).digest()
        options["seed"] = int.from_bytes(digest[:4])
    if settings.sampler in ("cmaes", "quasi_random"):
        options["warn_independent_sampling"] = False
    sampler: BaseSampler = _make("sampler", SAMPLERS[settings.sampler], options)
    return sampler


def make_pruner(settings: SearchSettings, num_validations: int | None) -> "BasePruner":
    """Make Optuna's pruner for jobs of `num_validations`, which is None if that is not known.

    Raises:
        UserError: If Optuna refuses an option.
    """
    name = PRUNERS[settings.pruner] if settings.pruner is not None else "NopPruner"
    options = dict(settings.pruner_options)
    if settings.pruner == "hyperband" and num_validations is not None:
        options = {"max_resource": num_validations} | options
    pruner: BasePruner = _make("pruner", name, options)
    return pruner


def make_objectives(config: Mapping[str, Any], several: list[Objective] | None) -> list[Objective]:
    """Return the objectives of a search: `several` of `hydra.sweeper`, else that of the config of a typical job.

    Raises:
        UserError: If such jobs will not have these values.
    """
    if several is None and config.get("objective") is None:
        raise UserError(
            "objective=null: a search needs to know what is better: set objective.metric and objective.mode, "
            "or several in hydra.sweeper.objectives"
        )
    objectives = several or [Objective(**config["objective"])]
    names = (*validation_metrics(config["task"]), *RUN_VALUES)
    for objective in objectives:
        if config["task"]["_target_"] in SECTIONS and objective.metric not in names:
            hint = did_you_mean(objective.metric, names)
            raise UserError(
                f"hydra.sweeper.objectives: {objective.metric} is not a value that runs report{hint}; "
                f"known: {', '.join(names)}"
            )
    metrics = [objective.metric for objective in objectives if objective.metric not in RUN_VALUES]
    if metrics and (setting := find_missing_validation(dict(config))):
        raise UserError(f"{setting}: without validation data there is no {metrics[0]} to search by")
    return objectives


def objective_value(objective: Objective, result: Mapping[str, Any]) -> float | None:
    """Look up an objective in a result.json: of a metric, the best value if it is known. None if there is none."""
    group, _, key = objective.metric.partition(".")
    if objective.metric in RUN_VALUES:
        value = result.get(group)
        value = value.get(key) if key and isinstance(value, dict) else value
    else:
        value = (result.get("best") or result.get("last") or {}).get(objective.metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def missing_metric(objectives: Sequence[Objective], reported: Sequence[str]) -> str | None:
    """Return an error message if a run has not reported the metric of an objective, else None."""
    missing = [objective.metric for objective in objectives if objective.metric not in (*RUN_VALUES, *reported)]
    if not missing:
        return None
    names = ", ".join(reported) or "no validation metric"
    return f"the objective {missing[0]} was not reported in validation; reported: {names}. No other job would have it"


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


def _make(kind: str, name: str, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an option is experimental
        try:
            return _optuna_class(kind, name)(**options)
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(f"{SECTION}.{kind}_options: {name} of Optuna says: {error}") from error


def _optuna_class(kind: str, name: str) -> Any:
    import optuna

    return getattr(optuna.samplers if kind == "sampler" else optuna.pruners, name)


def _option_problems(kind: str, name: str, options: Mapping[str, Any]) -> list[str]:
    """Check options by the signature of Optuna's class."""
    signature = inspect.signature(_optuna_class(kind, name).__init__)
    parameters = {key: parameter for key, parameter in signature.parameters.items() if key not in _NOT_OPTIONS}
    problems = []
    for key, value in options.items():
        location = f"{SECTION}.{kind}_options.{key}"
        if key not in parameters:
            hint = did_you_mean(key, parameters)
            problems.append(f"{location}: {name} has no such option{hint}; known: {', '.join(parameters) or 'none'}")
        elif not _fits(value, annotation := str(parameters[key].annotation)):
            problems.append(f"{location}={format_value(value)}: expected {annotation.replace('None', 'null')}")
    return problems


def _fits(value: Any, annotation: str) -> bool:
    """Check a value against a type such as `int | None`; other types are left to the class itself."""
    names = [name.strip() for name in annotation.split("|")]
    if not set(names) <= _TYPES.keys():
        return True
    types = tuple(type_ for name in names for type_ in _TYPES[name])
    return bool in types if isinstance(value, bool) else isinstance(value, types)
