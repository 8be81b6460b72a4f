"""Reads the space of a search, which is written in Hydra's own grammar of sweeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from litlab.config.suggestions import nearest
from litlab.errors import UserError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


Number = int | float
_PLACES = (0.5, 0.25, 0.75, 0.0, 1.0)  # between the bounds, of points to try


@dataclass(frozen=True)
class Numbers:
    """All numbers from `low` to `high`, both included; whole ones where `low` is an int.

    Attributes:
        step: the distance of neighbours; None for a continuum.
        log: whether the logarithm is what is searched evenly.
    """

    low: Number
    high: Number
    step: Number | None
    log: bool

    def text(self, value: Number) -> str:
        """A value as an override has it."""
        if isinstance(self.low, int):
            return repr(int(value))
        return repr(float(value) if self.step is None else without_noise(value))

    def texts(self) -> Iterator[str] | None:
        """All values; None for a continuum."""
        if self.step is None and self.low < self.high:
            return None
        count = round((self.high - self.low) / self.step) if self.step else 0
        return (self.text(self.low + index * (self.step or 0)) for index in range(count + 1))


@dataclass(frozen=True)
class Choices:
    """Values of any kind, or configs of a group, as texts in Hydra's grammar."""

    values: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        return iter(self.values)


@dataclass(frozen=True)
class Dimension:
    """
    Attributes:
        name: of the parameter; the key, with the condition where another one has the same key.
        key: what is overridden.
        expression: the values, as they were written.
        condition: key and value of an earlier dimension, without which this one is not there.
    """

    name: str
    key: str
    domain: Numbers | Choices
    expression: str
    condition: tuple[str, str] | None = None

    def values(self) -> list[str]:
        return list(self.domain.values) if isinstance(self.domain, Choices) else [self.expression]

    def when(self) -> list[str]:
        """The condition in words."""
        return [f"where {'='.join(self.condition)}"] if self.condition else []

    def holds(self, point: Mapping[str, str]) -> bool:
        return self.condition is None or point.get(self.condition[0]) == self.condition[1]


@dataclass(frozen=True)
class Space:
    """
    Attributes:
        dimensions: a condition names an earlier one.
        fixed: the overrides that all points share.
    """

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @property
    def axes(self) -> dict[str, list[str]]:
        """Name of each parameter -> what it may be: choices themselves, numbers as they were written."""
        return {each.name: [*each.values(), *each.when()] for each in self.dimensions}

    def overrides(self, point: Mapping[str, str]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in point.items())]

    def examples(self) -> list[dict[str, str]]:
        """A few points, each another one; in the first the first of choices, and of numbers the middle."""
        found: list[dict[str, str]] = []
        for index in range(len(_PLACES)):
            point: dict[str, str] = {}
            for each in self.dimensions:
                if each.holds(point):
                    point[each.key] = _example(each.domain, index)
            if point not in found:
                found.append(point)
        return found

    def points(self, limit: int) -> list[dict[str, str]] | None:
        """All points, if there are no more than so many."""
        found = list(islice(self._from(0, {}), limit + 1)) if self._is_finite() else None
        return found if found is not None and len(found) <= limit else None

    def _is_finite(self) -> bool:
        return all(each.domain.texts() is not None for each in self.dimensions)

    def _from(self, index: int, point: dict[str, str]) -> Iterator[dict[str, str]]:
        if index == len(self.dimensions):
            yield point
            return
        dimension = self.dimensions[index]
        if not dimension.holds(point):
            yield from self._from(index + 1, point)
            return
        for text in dimension.domain.texts() or ():
            yield from self._from(index + 1, point | {dimension.key: text})


def without_noise(value: float) -> float:
    """A sum of steps without what rounding made of its last bits."""
    return float(f"{value:.12g}")


def _example(domain: Numbers | Choices, index: int) -> str:
    if isinstance(domain, Choices):
        return domain.values[index % len(domain.values)]
    low, high, place = domain.low, domain.high, _PLACES[index]
    value = low * (high / low) ** place if domain.log else low + place * (high - low)
    value = min(max(value, low), high)  # whatever rounding does
    return domain.text(value if domain.step is None else low + int((value - low) / domain.step) * domain.step)


def parse_space(
    loader: "ConfigLoader",
    params: Mapping[str, Any] | None,
    arguments: Sequence[str],
    conditional: Mapping[str, Mapping[str, Any]] | None,
    chosen: Mapping[str, str],
) -> Space:
    """The space of a search.

    Args:
        loader: knows the configs of a group, for `glob`.
        params: key -> expression, as `hydra.sweeper.params` has it.
        arguments: overrides of the command line; they replace those of `params`.
        conditional: `key=value` -> key -> expression.
        chosen: config group -> the config chosen without the search.

    Raises:
        UserError: with a line for each thing that is wrong.
    """
    written = {_bare(each.get_key_element()): each for each in _parse(loader, [*_lines(params or {}), *arguments])}
    problems: list[str] = []
    dimensions = [d for each in written.values() if each.is_sweep_override() and (d := _dimension(each, problems))]
    fixed = {key: each for key, each in written.items() if not each.is_sweep_override()}
    known = {_bare(group): str(value) for group, value in chosen.items()}
    known |= {key: each.get_value_element_as_str() for key, each in fixed.items() if not each.is_delete()}
    for condition, inner in (conditional or {}).items():
        dimensions += _conditional(loader, condition, inner, dimensions, known, problems)
    if not dimensions and not problems:
        problems = [
            "hydra/sweeper=search: there is nothing to search; give a key several values, as in "
            "'optimizer.lr=tag(log,interval(0.001,1))' or model=cnn,resnet18"
        ]
    if problems:
        raise UserError("\n".join(problems))
    return Space(tuple(_named(dimensions)), tuple(_fixed(each) for each in fixed.values()))


def _lines(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={'null' if value is None else value}" for key, value in params.items()]


def _parse(loader: "ConfigLoader", lines: Sequence[str]) -> "list[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from litlab.config.compose import explain

    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(lines))
    except HydraException as error:
        raise UserError(explain(error, list(lines))) from error


def _fixed(override: "Override") -> str:
    key = override.get_key_element()
    if override.is_delete() and override.value() is None:
        return key
    return f"{key}={override.get_value_element_as_str()}"


def _conditional(
    loader: "ConfigLoader",
    text: str,
    inner: Mapping[str, Any],
    dimensions: Sequence[Dimension],
    known: Mapping[str, str],
    problems: list[str],
) -> list[Dimension]:
    """The dimensions that are there on a condition. One on something fixed is decided here."""
    where = f"hydra.sweeper.conditional.'{text}'"
    condition = _parse(loader, [text])[0] if "=" in text else None
    if condition is None or condition.is_sweep_override() or not isinstance(inner, Mapping):
        problems.append(f"{where}: expected a choice and what is searched then, as 'model=cnn': {{model.widths: ...}}")
        return []
    key, value = _bare(condition.get_key_element()), condition.get_value_element_as_str()
    choices = {_bare(each.key): each for each in dimensions if isinstance(each.domain, Choices)}
    if problem := _impossible(loader, key, value, choices, known):
        problems.append(f"{where}: {problem}")
        return []
    found = [d for each in _parse(loader, _lines(inner)) if (d := _dimension(each, problems))]
    if key not in choices and known[key] != value:
        return []
    for each in found:
        same = [d for d in dimensions if _bare(d.key) == _bare(each.key)]
        if both := [d for d in same if d.condition is None or _bare(d.condition[0]) != key or d.condition[1] == value]:
            problems.append(
                f"{where}: {each.key} is searched already: {' '.join([both[0].expression, *both[0].when()])}"
            )
    return [replace(each, condition=(choices[key].key, value)) if key in choices else each for each in found]


def _impossible(
    loader: "ConfigLoader", key: str, value: str, choices: Mapping[str, Dimension], known: Mapping[str, str]
) -> str | None:
    """Why a condition never holds, whatever is chosen of the space and of config groups."""
    if key in choices:
        values = choices[key].values()
        return None if value in values else f"{key} is never {value}; its values: {', '.join(values)}"
    if key not in known:
        hint = nearest(key, [*choices, *known]) or f"; searched among values: {', '.join(choices) or 'nothing'}"
        return f"{key} is neither fixed nor searched among given values{hint}"
    if value in (known[key], *loader.get_group_options(key.partition("@")[0])):
        return None
    return f"{key} is never {value}: it is {known[key]}"


def _named(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    """With a name of its own for each: what has bounds of its own on each condition is a parameter each time."""
    keys = [_bare(each.key) for each in dimensions]
    for each, key in zip(dimensions, keys, strict=True):
        several = each.condition is not None and keys.count(key) > 1
        yield replace(each, name=f"{key} ({'='.join(each.condition or ())})" if several else key)


def _bare(key: str) -> str:
    return key.lstrip("+~")


def _dimension(override: "Override", problems: list[str]) -> Dimension | None:
    """What one override searches; what is wrong with it is added to the problems."""
    from hydra.errors import HydraException

    key = override.get_key_element()
    try:
        domain = _domain(override)
    except (ValueError, HydraException) as error:
        problems.append(f"{override.input_line}: {error}")
        return None
    return Dimension(key, key, domain, override.get_value_string())


def _domain(override: "Override") -> Numbers | Choices:
    """
    Raises:
        ValueError: saying what was expected.
    """
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    value = override.value()
    tags = set(getattr(value, "tags", ()))
    if unknown := tags - {"log"}:
        raise ValueError(f"unknown tag {', '.join(sorted(unknown))}; known: log")
    if isinstance(value, IntervalSweep):
        return _interval(value.start, value.end, "log" in tags)
    if isinstance(value, RangeSweep):
        values = value.range()
        numbers = values if isinstance(values, range) else [without_noise(each) for each in islice(values, 10**6)]
        return _range(numbers, value.step, "log" in tags)
    if "log" in tags:
        raise ValueError("choices have no logarithm; tag(log,...) is for intervals and ranges")
    if not override.is_sweep_override():
        return Choices((override.get_value_element_as_str(),))
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if getattr(value, "shuffle", False):  # so that they are the same the next time
        texts = tuple(sorted(texts))
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
        raise ValueError("tag(log,...) needs a range of whole numbers above 0 with step 1, or an interval")
    return Numbers(low, high, abs(step), log)
