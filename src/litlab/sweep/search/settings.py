"""The settings of a search, and Optuna's samplers and pruners by the names that they have in them."""

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


WHERE = "hydra.sweeper"
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
# What a config can't hold, what litlab sets, and what would only warn of what litlab takes care of.
_NOT_OPTIONS = (
    "self", "seed", "gamma", "weights", "constraints_func", "independent_sampler", "source_trials",
    "warn_independent_sampling", "warn_asynchronous_seeding",
)  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
}  # fmt: skip


class SearchSettings(Section):
    """What `hydra.sweeper` holds for a search, besides its space."""

    trials: Count
    sampler: Literal["tpe", "cmaes", "random", "quasi_random"]
    sampler_options: dict[str, Any]
    pruner: Literal["median", "successive_halving", "hyperband"] | None
    pruner_options: dict[str, Any]
    seed: CountOrZero
    objectives: Annotated[list[Objective], Field(min_length=2)] | None
    storage: str | None


def read_settings(values: Mapping[str, Any]) -> SearchSettings:
    """
    Raises:
        UserError: with a line for each setting that is unknown or out of range, also the options.
    """
    check_settings(WHERE, dict(values), SearchSettings)
    settings = SearchSettings.model_validate(dict(values))
    problems = _option_problems("sampler", SAMPLERS[settings.sampler], settings.sampler_options)
    if settings.pruner is not None:
        problems += _option_problems("pruner", PRUNERS[settings.pruner], settings.pruner_options)
    elif settings.pruner_options:
        problems.append(f"{WHERE}.pruner_options: there is no pruner to take them; choose {WHERE}.pruner")
    if settings.objectives is not None and settings.pruner is not None:
        problems.append(f"{WHERE}.pruner={settings.pruner}: can't be combined with several objectives; set it to null")
    if settings.objectives is not None and settings.sampler == "cmaes":
        problems.append(f"{WHERE}.sampler=cmaes: knows one objective only; for several use tpe")
    if problems:
        raise UserError("\n".join(problems))
    return settings


def check_sampler(settings: SearchSettings, space: Space) -> None:
    """
    Raises:
        UserError: if the sampler can't do anything with this space.
    """
    numbers = [each for each in space.dimensions if isinstance(each.domain, Numbers) and each.condition is None]
    if settings.sampler == "cmaes" and len(numbers) < 2:
        raise UserError(
            f"{WHERE}.sampler=cmaes: needs two or more dimensions of numbers, this space has {len(numbers)}; use tpe"
        )


def make_sampler(settings: SearchSettings, num_trials: int) -> "BaseSampler":
    """The sampler of a start of the search.

    Args:
        num_trials: those that there are already: from the same seed it would repeat them. A quasi-random sequence
            knows by itself where it was.

    Raises:
        UserError: if Optuna refuses an option.
    """
    options: dict[str, Any] = dict(settings.sampler_options)
    if settings.sampler == "quasi_random":
        options = {"scramble": True, "seed": settings.seed % 2**32} | options
    else:
        digest = hashlib.sha256(f"{settings.seed} {num_trials}".encode()).digest()
        options["seed"] = int.from_bytes(digest[:4])
    if settings.sampler in ("cmaes", "quasi_random"):
        options["warn_independent_sampling"] = False
    sampler: BaseSampler = _made("sampler", SAMPLERS[settings.sampler], options)
    return sampler


def make_pruner(settings: SearchSettings, num_validations: int | None) -> "BasePruner":
    """
    Args:
        num_validations: of a job that trains to the end, if that is known.

    Raises:
        UserError: if Optuna refuses an option.
    """
    if settings.pruner is None:
        name, options = "NopPruner", {}
    else:
        name, options = PRUNERS[settings.pruner], dict(settings.pruner_options)
    if settings.pruner == "hyperband" and num_validations is not None:
        options = {"max_resource": num_validations} | options
    pruner: BasePruner = _made("pruner", name, options)
    return pruner


def _made(kind: str, name: str, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an option is experimental
        try:
            return _class(kind, name)(**options)
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(f"{WHERE}.{kind}_options: {name} of Optuna says: {error}") from error


def _class(kind: str, name: str) -> Any:
    import optuna

    if name == SAMPLERS["cmaes"]:
        from litlab.sweep.search.unpickle import RestoringSampler

        return RestoringSampler
    return getattr(optuna.samplers if kind == "sampler" else optuna.pruners, name)


def _option_problems(kind: str, name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments for a class of Optuna, by its signature."""
    signature = inspect.signature(_class(kind, name).__init__)
    known = {key: each for key, each in signature.parameters.items() if key not in _NOT_OPTIONS}
    problems = []
    for key, value in options.items():
        where = f"{WHERE}.{kind}_options.{key}"
        if key not in known:
            hint = did_you_mean(key, known)
            problems.append(f"{where}: {name} has no such option{hint}; known: {', '.join(known) or 'none'}")
        elif not _fits(value, str(known[key].annotation)):
            problems.append(
                f"{where}={format_value(value)}: expected {str(known[key].annotation).replace('None', 'null')}"
            )
    return problems


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of a type such as `int | None`; of other types the class itself has to know."""
    names = [name.strip() for name in annotation.split("|")]
    if not set(names) <= _TYPES.keys():
        return True
    types = [each for name in names for each in _TYPES[name]]
    return (
        isinstance(value, bool)
        if types == [bool]
        else (isinstance(value, tuple(types)) and (not isinstance(value, bool) or bool in types))
    )
