"""Reading YAML that may be a stranger's: it can name billions of values, or nest until the process dies."""

from functools import cache
from typing import Any

_DEEPEST = 5000  # brackets in a file, and dashes or question marks in a line, each of which may open a level


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

    return yaml.load(content, _loader())


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
