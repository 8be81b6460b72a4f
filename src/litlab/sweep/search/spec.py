"""What a search is, from its settings and a first look at what its jobs are like."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litlab.config.search_space import Space
from litlab.errors import UserError
from litlab.sweep.backends.base import Config
from litlab.sweep.search.objectives import Objective, num_validations, objectives_of
from litlab.sweep.search.settings import SearchSettings, make_pruner, make_sampler
from litlab.sweep.search.storage import explained
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


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
    """A search, after a look at a job of its space; see `Search` for the arguments.

    Raises:
        UserError: if a few points can't be jobs, its runs won't have the objectives, or Optuna refuses an option.
    """
    typical = _typical(space, compose)
    objectives = objectives_of(typical, settings.objectives)
    make_sampler(settings, 0)
    make_pruner(settings, num_validations(typical))
    return Search(name, settings, space, objectives, typical, compose, provenance)


def _typical(space: Space, compose: Compose) -> Config:
    """The config of a job, in the middle of the space if that can be one.

    Raises:
        UserError: if none of several points can.
    """
    points, refused = space.examples(), list[UserError]()
    for point in points:
        try:
            return compose(space.overrides(point), 0).config
        except UserError as error:
            refused.append(error)
            if [str(each) for each in refused].count(str(error)) > 1:  # which has nothing to do with the point
                break
    where = " ".join(f"{key}={value}" for key, value in points[0].items())
    tried = f"in the middle of the space: {where}; points tried: {len(refused)}"
    raise UserError(f"{refused[0]}\n({tried})") from refused[0]
