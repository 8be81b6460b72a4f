"""Reads the space of a search, which is written in Hydra's own grammar of sweeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from litlab.config.space import Choices, Dimension, Number, Numbers, Space, without_noise
from litlab.config.words import nearest
from litlab.errors import UserError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


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
