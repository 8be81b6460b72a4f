"""Search spaces: parameters with intervals, ranges or choices, written in Hydra's grammar of sweeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from litlab.config.hydra_errors import parse_overrides
from litlab.config.tree import ROOT_VALUES, bare_key, did_you_mean
from litlab.errors import UserError

Number = int | float
_EXAMPLE_FRACTIONS = (0.5, 0.25, 0.75, 0.0, 1.0)  # between the bounds
_MAX_RANGE = 10**6  # values


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`, both included; integers if `low` is one.

    Attributes:
        step: Distance of neighbors; None for a continuous interval.
        log: Whether to search the logarithm evenly.
    """

    low: Number
    high: Number
    step: Number | None
    log: bool

    def text(self, value: Number) -> str:
        """Return a value as an override has it."""
        if isinstance(self.low, int):
            return repr(int(value))
        return repr(float(value) if self.step is None else round_step(value))

    def texts(self) -> Iterator[str] | None:
        """Return all values; None for a continuous interval."""
        if self.step is None and self.low < self.high:
            return None
        num_steps = round((self.high - self.low) / self.step) if self.step else 0
        return (self.text(self.low + index * (self.step or 0)) for index in range(num_steps + 1))


@dataclass(frozen=True)
class Choices:
    """Values of any type, or configs of a group, as texts in Hydra's grammar."""

    values: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Return all values."""
        return iter(self.values)


@dataclass(frozen=True)
class Dimension:
    """Parameter of a search.

    Attributes:
        name: Name of the parameter: its key, with the condition if another parameter has the same key.
        expression: The values, as they were written.
        condition: (key, value) of an earlier dimension that must hold for this one to exist; None if it always does.
    """

    name: str
    key: str
    domain: Numbers | Choices
    expression: str
    condition: tuple[str, str] | None = None

    def values(self) -> list[str]:
        """Return the choices themselves, numbers as they were written."""
        return list(self.domain.values) if isinstance(self.domain, Choices) else [self.expression]

    def condition_text(self) -> list[str]:
        """Return the condition as a text in a list; an empty list if there is none."""
        return [f"where {'='.join(self.condition)}"] if self.condition else []

    def exists_at(self, point: Mapping[str, str]) -> bool:
        """Return whether the parameter exists at a point, given by the values of the earlier dimensions."""
        return self.condition is None or point.get(self.condition[0]) == self.condition[1]


@dataclass(frozen=True)
class Space:
    """Parameters, of which the condition of one names an earlier one, and the overrides that all points share."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @property
    def axes(self) -> dict[str, list[str]]:
        """Name of each parameter -> its choices, or its numbers as they were written."""
        return {dimension.name: [*dimension.values(), *dimension.condition_text()] for dimension in self.dimensions}

    def overrides(self, point: Mapping[str, str]) -> list[str]:
        """Return all overrides of a point."""
        return [*self.fixed, *(f"{key}={value}" for key, value in point.items())]

    def config_choices(self) -> list[tuple[str, str]]:
        """Return key and value of each config that may be chosen, whatever else is chosen."""
        return [
            (dimension.key, value)
            for dimension in self.dimensions
            if isinstance(dimension.domain, Choices) and dimension.condition is None
            if "." not in dimension.key and bare_key(dimension.key) not in ROOT_VALUES
            for value in dimension.domain.values
        ]

    def examples(self, choice: tuple[str, str] | None = None) -> list[dict[str, str]]:
        """Return a few distinct points; the first has the first of all choices and the middle of all numbers.

        Args:
            choice: Key and value that all of them have; None for any.
        """
        points: list[dict[str, str]] = []
        for index in range(len(_EXAMPLE_FRACTIONS)):
            point: dict[str, str] = {}
            for dimension in self.dimensions:
                if choice and dimension.key == choice[0]:
                    point[dimension.key] = choice[1]
                elif dimension.exists_at(point):
                    point[dimension.key] = _example(dimension.domain, index)
            if point not in points:
                points.append(point)
        return points

    def points(self, limit: int) -> list[dict[str, str]] | None:
        """Return all points; None if there are more than `limit`."""
        if any(dimension.domain.texts() is None for dimension in self.dimensions):
            return None
        points = list(islice(self._points_from(0, {}), limit + 1))
        return points if len(points) <= limit else None

    def _points_from(self, index: int, point: dict[str, str]) -> Iterator[dict[str, str]]:
        if index == len(self.dimensions):
            yield point
            return
        dimension = self.dimensions[index]
        if not dimension.exists_at(point):
            yield from self._points_from(index + 1, point)
            return
        for text in dimension.domain.texts() or ():
            yield from self._points_from(index + 1, point | {dimension.key: text})


def round_step(value: float) -> float:
    """Remove the rounding errors in the last bits of a sum of steps."""
    return float(f"{value:.12g}")


def parse_space(
    loader: ConfigLoader,
    params: Mapping[str, Any] | None,
    arguments: Sequence[str],
    conditional: Mapping[str, Mapping[str, Any]] | None,
    chosen: Mapping[str, str],
) -> Space:
    """Return the space of a search.

    Args:
        loader: Hydra's config loader, which knows the configs of a group for `glob`.
        params: Key -> expression, as `hydra.sweeper.params` has it.
        arguments: Overrides of the command line; they replace those of `params`.
        conditional: `key=value` -> key -> expression.
        chosen: Config group -> config chosen without the search.

    Raises:
        UserError: With a line for each problem.
    """
    overrides = {
        bare_key(override.get_key_element()): override
        for override in parse_overrides([*_lines(params or {}), *arguments], loader)
    }
    problems: list[str] = []
    dimensions = [
        dimension
        for override in overrides.values()
        if override.is_sweep_override() and (dimension := _dimension(override, problems))
    ]
    fixed = {key: override for key, override in overrides.items() if not override.is_sweep_override()}
    values = {bare_key(group): str(value) for group, value in chosen.items()}
    values |= {key: override.get_value_element_as_str() for key, override in fixed.items() if not override.is_delete()}
    for condition, inner in (conditional or {}).items():
        dimensions += _conditional(loader, condition, inner, dimensions, values, problems)
    if not dimensions and not problems:
        problems = [
            "hydra/sweeper=search: there is nothing to search; give a key several values, as in "
            "'optimizer.lr=tag(log,interval(0.001,1))' or model=cnn,resnet18"
        ]
    if problems:
        raise UserError("\n".join(problems))
    return Space(tuple(_with_unique_names(dimensions)), tuple(map(_fixed_text, fixed.values())))


def _lines(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={'null' if value is None else value}" for key, value in params.items()]


def _fixed_text(override: Override) -> str:
    key = override.get_key_element()
    return key if override.is_delete() and override.value() is None else f"{key}={override.get_value_element_as_str()}"


def _conditional(
    loader: ConfigLoader,
    text: str,
    inner: Mapping[str, Any],
    dimensions: Sequence[Dimension],
    values: Mapping[str, str],
    problems: list[str],
) -> list[Dimension]:
    """Return the dimensions that exist on a condition; one on a fixed value is decided here."""
    where = f"hydra.sweeper.conditional.'{text}'"
    condition = parse_overrides([text], loader)[0] if "=" in text else None
    if condition is None or condition.is_sweep_override() or not isinstance(inner, Mapping):
        problems.append(f"{where}: expected a choice and what is searched then, as 'model=cnn': {{model.widths: ...}}")
        return []
    key, value = bare_key(condition.get_key_element()), condition.get_value_element_as_str()
    choices = {bare_key(dimension.key): dimension for dimension in dimensions if isinstance(dimension.domain, Choices)}
    if problem := _condition_problem(loader, key, value, choices, values):
        problems.append(f"{where}: {problem}")
        return []
    inner_dimensions = [
        dimension
        for override in parse_overrides(_lines(inner), loader)
        if (dimension := _dimension(override, problems))
    ]
    if key not in choices and values[key] != value:
        return []
    for dimension in inner_dimensions:
        for other in dimensions:
            coexists = other.condition is None or bare_key(other.condition[0]) != key or other.condition[1] == value
            if bare_key(other.key) == bare_key(dimension.key) and coexists:
                values_text = " ".join([other.expression, *other.condition_text()])
                problems.append(f"{where}: {dimension.key} is searched already: {values_text}")
                break
    if key not in choices:
        return inner_dimensions
    return [replace(dimension, condition=(choices[key].key, value)) for dimension in inner_dimensions]


def _condition_problem(
    loader: ConfigLoader, key: str, value: str, choices: Mapping[str, Dimension], values: Mapping[str, str]
) -> str | None:
    """Return why a condition never holds, whatever is chosen of the space and of config groups."""
    if key in choices:
        domain = choices[key].values()
        return None if value in domain else f"{key} is never {value}; its values: {', '.join(domain)}"
    if key not in values:
        hint = did_you_mean(key, [*choices, *values]) or f"; searched among values: {', '.join(choices) or 'nothing'}"
        return f"{key} is neither fixed nor searched among given values{hint}"
    if value in (values[key], *loader.get_group_options(key.partition("@")[0])):
        return None
    return f"{key} is never {value}: it is {values[key]}"


def _with_unique_names(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    """Add the condition to the names of dimensions that share a key: each has bounds of its own."""
    keys = [bare_key(dimension.key) for dimension in dimensions]
    for dimension, key in zip(dimensions, keys, strict=True):
        is_shared = dimension.condition is not None and keys.count(key) > 1
        yield replace(dimension, name=f"{key} ({'='.join(dimension.condition or ())})" if is_shared else key)


def _dimension(override: Override, problems: list[str]) -> Dimension | None:
    """Return the dimension of an override; if it is wrong, add the problem and return None."""
    key = override.get_key_element()
    try:
        domain = _domain(override)
    except (ValueError, HydraException) as error:
        problems.append(f"{override.input_line}: {error}")
        return None
    return Dimension(key, key, domain, override.get_value_string())


def _domain(override: Override) -> Numbers | Choices:
    """Return the values of an override. Raises ValueError with what was expected."""
    value = override.value()
    tags = set(getattr(value, "tags", ()))
    if unknown := tags - {"log"}:
        raise ValueError(f"unknown tag {', '.join(sorted(unknown))}; known: log")
    if isinstance(value, IntervalSweep):
        return _interval(value.start, value.end, "log" in tags)
    if isinstance(value, RangeSweep):
        values = value.range()
        numbers = values if isinstance(values, range) else [round_step(number) for number in islice(values, _MAX_RANGE)]
        return _range(numbers, value.step, "log" in tags)
    if "log" in tags:
        raise ValueError("choices have no logarithm; tag(log,...) is for intervals and ranges")
    if not override.is_sweep_override():
        return Choices((override.get_value_element_as_str(),))
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if getattr(value, "shuffle", False):
        texts = tuple(sorted(texts))  # the same order each time
    if not texts:
        raise ValueError("is empty: there is no value to choose")
    return Choices(texts)


def _interval(low: Any, high: Any, log: bool) -> Numbers:
    if not low < high:
        raise ValueError(f"expected an interval from a lower to a higher number, found {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"tag(log,...) needs numbers above 0, found {low}")
    return Numbers(low, high, 1 if isinstance(low, int) else None, log)


def _range(values: Sequence[Any], step: Number, log: bool) -> Numbers:
    if not values:
        raise ValueError("is empty: the end of a range is left out")
    low, high = sorted((values[0], values[-1]))
    if log and (low <= 0 or step != 1 or not isinstance(low, int)):
        raise ValueError("tag(log,...) needs a range of integers above 0 with step 1, or an interval")
    return Numbers(low, high, abs(step), log)


def _example(domain: Numbers | Choices, index: int) -> str:
    if isinstance(domain, Choices):
        return domain.values[index % len(domain.values)]
    low, high, fraction = domain.low, domain.high, _EXAMPLE_FRACTIONS[index]
    value = low * (high / low) ** fraction if domain.log else low + fraction * (high - low)
    value = min(max(value, low), high)  # against rounding errors
    return domain.text(value if domain.step is None else low + int((value - low) / domain.step) * domain.step)
