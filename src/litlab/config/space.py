"""The space of a search: what is varied, within which bounds, and on what condition."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

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
