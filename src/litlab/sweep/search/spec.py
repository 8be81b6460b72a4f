"""Specification of a search: its settings, space, objectives, and a typical job."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litlab.config.schema import Objective
from litlab.config.search_space import Space
from litlab.errors import UserError
from litlab.sweep.backends.base import Config
from litlab.sweep.search.settings import SearchSettings, make_objectives, make_pruner, make_sampler, num_validations
from litlab.sweep.search.storage import storage_errors
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


Compose = Callable[[list[str], int], "ComposedJob"]  # (overrides, next free number) -> job


@dataclass(frozen=True)
class SearchSpec:
    """Specification of a search.

    Attributes:
        name: Name of its trials in their database.
        typical_config: Frozen config of some job.
        compose: Composes a job; raises UserError for a point that can't be one.
    """

    name: str
    settings: SearchSettings
    space: Space
    objectives: list[Objective]
    typical_config: Config
    compose: Compose
    provenance: dict[str, Any]

    def storage_errors(self, study: Study) -> AbstractContextManager[None]:
        """Raise errors of the database as UserError."""
        return storage_errors(study.path, self.settings.storage)


def make_search_spec(
    name: str, settings: SearchSettings, space: Space, compose: Compose, provenance: dict[str, Any]
) -> SearchSpec:
    """Make the specification of a search, after composing one of its jobs; see `SearchSpec` for the arguments.

    Raises:
        UserError: If several points can't be jobs, or none with some config of a group, if its jobs won't have the
            objectives, or Optuna refuses an option.
    """
    config = _compose_typical(space, space.examples(), compose)
    for choice in space.config_choices():
        _compose_typical(space, space.examples(choice), compose)
    objectives = make_objectives(config, settings.objectives)
    make_sampler(settings, 0)
    make_pruner(settings, num_validations(config))
    return SearchSpec(name, settings, space, objectives, config, compose, provenance)


def _compose_typical(space: Space, points: list[dict[str, str]], compose: Compose) -> Config:
    """Compose the job of the first of some points that can be one."""
    errors = list[UserError]()
    for point in points:
        try:
            return compose(space.overrides(point), 0).config
        except UserError as error:
            errors.append(error)
            if [str(earlier) for earlier in errors].count(str(error)) > 1:  # it does not depend on the point
                break
    text = " ".join(f"{key}={value}" for key, value in points[0].items())
    details = f"in the middle of the space: {text}; points tried: {len(errors)}"
    raise UserError(f"{errors[0]}\n({details})") from errors[0]
