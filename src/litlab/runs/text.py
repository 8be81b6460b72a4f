"""Reading YAML that may be a stranger's: it can name billions of values, or nest until the process dies.

The configs of a study are nearly the same, and libyaml with what PyYAML does in Python takes a millisecond for each: so
a file is read by its sections, from one key at the margin to the next, and a section that was read before is known.
"""

import marshal
import os
import re
from functools import cache, lru_cache
from typing import Any, TextIO

_DEEPEST = 5000  # brackets in a file, and dashes or question marks in a line, each of which may open a level
_SECTION = re.compile(rb"^(?=[A-Za-z_]\w*:(?: |$))", re.MULTILINE)
_LONGEST_SECTION = 4000  # bytes of one that is kept; ours have a few hundred


def load_yaml(content: bytes) -> Any:
    """What a file holds, unchecked; merge keys (`<<`), which no file of ours has, are refused.

    Raises:
        ValueError: if it may be nested so deeply that the parser, which is written in C, would overflow the stack.
        RecursionError: likewise, where the parser is written in Python.
        yaml.YAMLError: if it is no YAML.
    """
    num_brackets = content.count(b"[") + content.count(b"{")
    if num_brackets > _DEEPEST or any(_num_dashes(line) > _DEEPEST for line in _long_lines(content)):
        raise ValueError(f"more than {_DEEPEST} brackets, or dashes in a line: no config is nested like that")
    import yaml  # here, since hardly anybody who knows a run directory reads this

    try:
        return _by_sections(content)
    except (yaml.YAMLError, ValueError):  # of which the whole says where it is, or which only make sense together
        return yaml.load(content, _loader())


def _by_sections(content: bytes) -> dict[Any, Any]:
    """What the whole holds, if each section is a mapping by itself.

    Raises:
        ValueError, yaml.YAMLError: if it isn't, or if there may be more to it than its sections.
    """
    first, *sections = _SECTION.split(content)
    if first or not sections or b"&" in content or b"\n---" in content or b"\n..." in content:
        raise ValueError("not made of sections alone")
    found: dict[Any, Any] = {}
    for section in sections:
        found |= marshal.loads(_known(section) if len(section) <= _LONGEST_SECTION else _read(section))
    return found


def _read(section: bytes) -> bytes:
    """The mapping in the form that is copied fastest: nobody shares it.

    Raises:
        ValueError: if it holds anything but plain values, or is no mapping.
        yaml.YAMLError: if it is no YAML.
    """
    import yaml

    found = yaml.load(section, _loader())
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return marshal.dumps(found)


_known = lru_cache(maxsize=4096)(_read)


def _long_lines(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines() if len(line) > _DEEPEST] if len(content) > _DEEPEST else []


def _num_dashes(line: bytes) -> int:
    return line.count(b"-") + line.count(b"?")


@cache
def _loader() -> Any:
    import yaml

    class WithoutMerging(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """What merge keys would do: lists of lists of them make billions of values before anybody can count."""

    return WithoutMerging


class LastingOutput:
    """A text stream that goes silent where it can't be written to any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _silence(self) -> None:
        """What is buffered still has to go somewhere, or the process ends with an error after all."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
