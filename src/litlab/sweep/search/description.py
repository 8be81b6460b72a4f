"""What a search is, from its settings and a first look at what its jobs are like."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litlab.config.space import Space
from litlab.errors import UserError
from litlab.sweep.backend import Config
from litlab.sweep.search.objectives import Objective, num_validations, objectives_of
from litlab.sweep.search.settings import SearchSettings, make_pruner, make_sampler
from litlab.sweep.search.storage import explained
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob

Compose = Callable[[list[str], int], "ComposedJob"]  # of overrides and the next free number


@dataclass(frozen=True)
class Search:
    """What a search is.

    Attributes:
        name: of its trials in their database.
        typical: the frozen config of some job of it.
        compose: raises UserError for a point that can't be a job.
        provenance: of its jobs.
    """

    name: str
    settings: SearchSettings
    space: Space
    objectives: list[Objective]
    typical: Config
    compose: Compose
    provenance: dict[str, Any]

    def explained(self, study: Study) -> AbstractContextManager[None]:
        return explained(study.path, self.settings.storage)


def describe(name: str, settings: SearchSettings, space: Space, compose: Compose, provenance: dict[str, Any]) -> Search:
    """A search, after a look at a job in the middle of its space; see `Search` for the arguments.

    Raises:
        UserError: if that can't be a job, its runs won't have the objectives, or Optuna refuses an option.
    """
    middle = space.middle()
    try:
        typical = compose(space.overrides(middle), 0).config
    except UserError as error:
        where = " ".join(f"{key}={value}" for key, value in middle.items())
        raise UserError(f"{error}\n(in the middle of the space: {where})") from error
    objectives = objectives_of(typical, settings.objectives)
    make_sampler(settings, 0)
    make_pruner(settings, num_validations(typical))
    return Search(name, settings, space, objectives, typical, compose, provenance)
