"""Points for a search: by any of Optuna's samplers, each point once."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.config.search_space import Choices, Dimension, Space

Point = frozenset[tuple[str, str]]  # key and text of each dimension that is there
TRIES = 20
SMALL = 10_000  # points; a space of more is not written out


class DistinctSampler(BaseSampler):
    """Samples whole points, conditional dimensions included, by another sampler, until one is new.

    Attributes:
        seen: the points that there are; whoever takes one adds it.
    """

    def __init__(self, inner: BaseSampler, space: Space, seed: int) -> None:
        self.seen: set[Point] = set()
        self._inner = inner
        self._space = space
        self._all = space.points(SMALL)
        self._random = random.Random(seed)
        self._evenly = RandomSampler(seed)
        self._sampled: dict[str, Any] = {}

    @property
    def is_exhausted(self) -> bool:
        return self._all is not None and len(self._all) <= len(self.seen)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._sampled = self._new_point(study, trial)
        return {each.name: distribution(each) for each in self._space.dimensions if each.name in self._sampled}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampled

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.after_trial(study, trial, state, values)

    def _new_point(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """A point that is new if there is one left; a sampler that has settled on a few values has to be helped."""
        for sampler in [self._inner] * TRIES + [self._evenly] * TRIES:
            values = self._sample(sampler, study, trial)
            if as_point(self._space, values) not in self.seen:
                return values
        left = [each for each in self._all or () if frozenset(each.items()) not in self.seen]
        fitting = [values for each in left if (values := as_values(self._space, each)).items() >= trial.params.items()]
        return self._random.choice(fitting) if fitting else values

    def _sample(self, sampler: BaseSampler, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        if isinstance(sampler, QMCSampler):  # which would spend the first trial to find out the space
            always = {each.name: each for each in self._space.dimensions if each.condition is None}
            relative_space = {name: dist for name, each in always.items() if not (dist := distribution(each)).single()}
        else:
            relative_space = sampler.infer_relative_search_space(study, trial)
        relative = sampler.sample_relative(study, trial, relative_space)
        values = dict(trial.params)  # of a trial whose sampling was cut short
        point: dict[str, str] = {}
        for each in self._space.dimensions:
            if not each.exists_at(point):
                continue
            wanted = distribution(each)
            if each.name in values:
                pass
            elif wanted.single():
                values[each.name] = each.domain.values[0] if isinstance(each.domain, Choices) else each.domain.low
            elif each.name in relative and wanted._contains(wanted.to_internal_repr(relative[each.name])):
                values[each.name] = relative[each.name]
            else:
                values[each.name] = sampler.sample_independent(study, trial, each.name, wanted)
            point[each.key] = as_text(each, values[each.name])
        return values


def suggest(trial: Trial, space: Space) -> dict[str, str]:
    """The point of a trial, key -> text; what the trial does not know yet is sampled and stored."""
    point: dict[str, str] = {}
    for each in space.dimensions:
        if each.exists_at(point):
            point[each.key] = as_text(each, _suggested(trial, each))
    return point


def _suggested(trial: Trial, dimension: Dimension) -> Any:
    domain, name = dimension.domain, dimension.name
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.values)
    if isinstance(domain.low, int):
        return trial.suggest_int(name, domain.low, int(domain.high), step=int(domain.step or 1), log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's terms."""
    domain = dimension.domain
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if isinstance(domain.low, int):
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def as_text(dimension: Dimension, value: Any) -> str:
    return value if isinstance(dimension.domain, Choices) else dimension.domain.text(value)


def as_point(space: Space, values: Mapping[str, Any]) -> Point:
    """A trial's values by key, as texts; those that its choices leave out are not in it."""
    return frozenset((each.key, as_text(each, values[each.name])) for each in space.dimensions if each.name in values)


def as_values(space: Space, point: Mapping[str, str]) -> dict[str, Any]:
    """The values of a point by the names of parameters."""
    values: dict[str, Any] = {}
    for each in space.dimensions:
        if each.key in point and each.exists_at(point):
            text = point[each.key]
            whole = not isinstance(each.domain, Choices) and isinstance(each.domain.low, int)
            values[each.name] = text if isinstance(each.domain, Choices) else int(text) if whole else float(text)
    return values
