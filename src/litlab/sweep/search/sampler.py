"""Sampling of distinct points of a search space with any of Optuna's samplers."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.config.search_space import Choices, Dimension, Space

Point = frozenset[tuple[str, str]]  # key and text of each active dimension
NUM_TRIES = 20
MAX_LISTED_POINTS = 10_000  # a larger space is not enumerated


class DistinctSampler(BaseSampler):
    """Samples whole points, conditional dimensions included, with another sampler until one is new.

    Args:
        inner: Optuna's sampler.
        space: Search space.
        seed: Seed for points that the other sampler does not find.

    Attributes:
        seen: Points that have a trial; the caller adds each point that it uses.
    """

    def __init__(self, inner: BaseSampler, space: Space, seed: int) -> None:
        self.seen: set[Point] = set()
        self._inner = inner
        self._space = space
        self._all_points = space.points(MAX_LISTED_POINTS)
        self._random = random.Random(seed)
        self._uniform = RandomSampler(seed)
        self._sampled: dict[str, Any] = {}

    @property
    def is_exhausted(self) -> bool:
        """True if every point of a finite space has been seen."""
        return self._all_points is not None and len(self._all_points) <= len(self.seen)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Sample a point, and return the distributions of its dimensions."""
        self._sampled = self._sample_new(study, trial)
        return {
            dimension.name: make_distribution(dimension)
            for dimension in self._space.dimensions
            if dimension.name in self._sampled
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the point that `infer_relative_search_space` has sampled."""
        return self._sampled

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample a single parameter."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseed the inner sampler."""
        self._inner.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Notify the inner sampler."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Notify the inner sampler."""
        self._inner.after_trial(study, trial, state, values)

    def _sample_new(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Sample a new point if there is one: uniformly where the inner sampler repeats a few points."""
        for sampler in [self._inner] * NUM_TRIES + [self._uniform] * NUM_TRIES:
            values = self._sample(sampler, study, trial)
            if to_point(self._space, values) not in self.seen:
                return values
        unseen = [point for point in self._all_points or () if frozenset(point.items()) not in self.seen]
        candidates = [to_values(self._space, point) for point in unseen]
        candidates = [candidate for candidate in candidates if candidate.items() >= trial.params.items()]
        return self._random.choice(candidates) if candidates else values

    def _sample(self, sampler: BaseSampler, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        if isinstance(sampler, QMCSampler):  # it would spend the first trial on inferring the space
            unconditional = [dimension for dimension in self._space.dimensions if dimension.condition is None]
            distributions = {dimension.name: make_distribution(dimension) for dimension in unconditional}
            relative_space = {name: dist for name, dist in distributions.items() if not dist.single()}
        else:
            relative_space = sampler.infer_relative_search_space(study, trial)
        relative = sampler.sample_relative(study, trial, relative_space)
        values = dict(trial.params)  # not empty for a trial whose sampling was interrupted
        point: dict[str, str] = {}
        for dimension in self._space.dimensions:
            if not dimension.exists_at(point):
                continue
            name, domain, distribution = dimension.name, dimension.domain, make_distribution(dimension)
            if name in values:
                pass
            elif distribution.single():
                values[name] = domain.values[0] if isinstance(domain, Choices) else domain.low
            elif name in relative and distribution._contains(distribution.to_internal_repr(relative[name])):
                values[name] = relative[name]
            else:
                values[name] = sampler.sample_independent(study, trial, name, distribution)
            point[dimension.key] = _to_text(dimension, values[name])
        return values


def suggest(trial: Trial, space: Space) -> dict[str, str]:
    """Return the point of a trial, texts by key; values that the trial does not have are sampled and stored."""
    point: dict[str, str] = {}
    for dimension in space.dimensions:
        if dimension.exists_at(point):
            point[dimension.key] = _to_text(dimension, _suggest(trial, dimension))
    return point


def make_distribution(dimension: Dimension) -> BaseDistribution:
    """Convert a dimension to Optuna's distribution."""
    domain = dimension.domain
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if isinstance(domain.low, int):
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def to_point(space: Space, values: Mapping[str, Any]) -> Point:
    """Convert a trial's values by parameter name to texts by key; inactive conditional dimensions are missing."""
    return frozenset(
        (dimension.key, _to_text(dimension, values[dimension.name]))
        for dimension in space.dimensions
        if dimension.name in values
    )


def to_values(space: Space, point: Mapping[str, str]) -> dict[str, Any]:
    """Convert a point, texts by key, to values by parameter name."""
    values: dict[str, Any] = {}
    for dimension in space.dimensions:
        if dimension.key in point and dimension.exists_at(point):
            text, domain = point[dimension.key], dimension.domain
            if isinstance(domain, Choices):
                values[dimension.name] = text
            else:
                values[dimension.name] = int(text) if isinstance(domain.low, int) else float(text)
    return values


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    domain, name = dimension.domain, dimension.name
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.values)
    if isinstance(domain.low, int):
        return trial.suggest_int(name, domain.low, int(domain.high), step=int(domain.step or 1), log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)


def _to_text(dimension: Dimension, value: Any) -> str:
    return value if isinstance(dimension.domain, Choices) else dimension.domain.text(value)
