"""How many digits of a setting are shown: a search tries learning rates of 17."""

import re
from collections.abc import Iterable

DIGITS = 5
_MOST = 17  # a float has no more
_NUMBER = re.compile(r"(?<![^\[,])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![^\],])")  # a whole text, or an item of a list


def shortened(texts: Iterable[str | None]) -> dict[str, str]:
    """Text of a setting -> the same with five significant digits, or with as many as tell all of the texts apart.

    Integers keep all of theirs.
    """
    values = {each for each in texts if each is not None}
    for digits in range(DIGITS, _MOST):
        short = {value: _short(value, digits) for value in values}
        if len(set(short.values())) == len(values):
            return short
    return {value: value for value in values}


def _short(value: str, digits: int) -> str:
    is_list_or_number = value.startswith("[") or _NUMBER.fullmatch(value)
    return _NUMBER.sub(lambda found: _rounded(found[0], digits), value) if is_list_or_number else value


def _rounded(number: str, digits: int) -> str:
    """The shorter of the two: 123456.7 stays what it is."""
    if "." not in number:
        return number
    short = f"{float(number):.{digits}g}"
    return short if len(short) < len(number) else number
