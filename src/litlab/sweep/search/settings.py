"""Settings of a search, with Optuna's samplers and pruners by name."""

import hashlib
import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from litlab.config.schema import Count, CountOrZero, Objective, Section
from litlab.config.search_space import Numbers, Space
from litlab.config.suggestions import did_you_mean
from litlab.config.tree import format_value
from litlab.config.validate import check_settings
from litlab.errors import UserError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


SECTION = "hydra.sweeper"
SAMPLERS = {
    "tpe": "TPESampler",
    "cmaes": "CmaEsSampler",
    "random": "RandomSampler",
    "quasi_random": "QMCSampler",
}
PRUNERS = {
    "median": "MedianPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
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
        problems.append(f"{SECTION}.sampler=cmaes: knows one objective only; for several use tpe")
    if problems:
        raise UserError("\n".join(problems))
    return settings


def check_sampler(settings: SearchSettings, space: Space) -> None:
    """Check that the sampler can handle the space.

    Raises:
        UserError: If it can't.
    """
    numbers = [
        dimension
        for dimension in space.dimensions
        if isinstance(dimension.domain, Numbers) and dimension.condition is None
    ]
    if settings.sampler == "cmaes" and len(numbers) < 2:
        raise UserError(
            f"{SECTION}.sampler=cmaes: needs two or more dimensions of numbers, this space has {len(numbers)}; use tpe"
        )


def make_sampler(settings: SearchSettings, num_trials: int) -> "BaseSampler":
    """Make Optuna's sampler.

    Args:
        settings: Settings of the search.
        num_trials: Number of trials so far; a sampler with the same seed would repeat them. A quasi-random sequence
            continues by itself.

    Raises:
        UserError: If Optuna refuses an option.
    """
    options: dict[str, Any] = dict(settings.sampler_options)
    if settings.sampler == "quasi_random":
        options = {"scramble": True, "seed": settings.seed % 2**32} | options
    else:
        digest = hashlib.sha256(f"{settings.seed} {num_trials}".encode()).digest()
        options["seed"] = int.from_bytes(digest[:4])
    if settings.sampler in ("cmaes", "quasi_random"):
        options["warn_independent_sampling"] = False
    sampler: BaseSampler = _make("sampler", SAMPLERS[settings.sampler], options)
    return sampler


def make_pruner(settings: SearchSettings, num_validations: int | None) -> "BasePruner":
    """Make Optuna's pruner.

    Args:
        settings: Settings of the search.
        num_validations: Number of validations of a job that trains to the end; None if that is not known.

    Raises:
        UserError: If Optuna refuses an option.
    """
    name = PRUNERS[settings.pruner] if settings.pruner is not None else "NopPruner"
    options = dict(settings.pruner_options)
    if settings.pruner == "hyperband" and num_validations is not None:
        options = {"max_resource": num_validations} | options
    pruner: BasePruner = _make("pruner", name, options)
    return pruner


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
    known = {key: parameter for key, parameter in signature.parameters.items() if key not in _NOT_OPTIONS}
    problems = []
    for key, value in options.items():
        place = f"{SECTION}.{kind}_options.{key}"
        if key not in known:
            hint = did_you_mean(key, known)
            problems.append(f"{place}: {name} has no such option{hint}; known: {', '.join(known) or 'none'}")
        elif not _fits(value, annotation := str(known[key].annotation)):
            problems.append(f"{place}={format_value(value)}: expected {annotation.replace('None', 'null')}")
    return problems


def _fits(value: Any, annotation: str) -> bool:
    """Check a value against a type such as `int | None`; other types are left to the class itself."""
    names = [name.strip() for name in annotation.split("|")]
    if not set(names) <= _TYPES.keys():
        return True
    types = tuple(type_ for name in names for type_ in _TYPES[name])
    return bool in types if isinstance(value, bool) else isinstance(value, types)
