"""Bounded loading of YAML that may be untrusted.

YAML can name billions of values by merge keys, or nest so deeply that the parser overflows the stack. Speed matters,
too: the configs of a study are nearly the same, and parsing one takes a millisecond. So a file is split into sections,
from one top-level key to the next, and sections that were parsed before are cached.
"""

import marshal
import re
from functools import cache, lru_cache
from typing import Any

_MAX_DEPTH = 5000  # brackets in a file, dashes or question marks in a line: each may open a level
_SECTION = re.compile(rb"^(?=[A-Za-z_]\w*:(?: |$))", re.MULTILINE)
_MAX_CACHED = 4000  # bytes of a section that is cached; those of litlab have a few hundred


def load_yaml(content: bytes) -> Any:
    """Load YAML without merge keys (`<<`), which no file of litlab has; the values are unchecked.

    Raises:
        ValueError: If it may be nested so deeply that the parser, which is written in C, would overflow the stack.
        RecursionError: Likewise, where the parser is written in Python.
        yaml.YAMLError: If it is no YAML.
    """
    long_lines = [line for line in content.splitlines() if len(line) > _MAX_DEPTH] if len(content) > _MAX_DEPTH else []
    num_brackets = content.count(b"[") + content.count(b"{")
    if num_brackets > _MAX_DEPTH or any(line.count(b"-") + line.count(b"?") > _MAX_DEPTH for line in long_lines):
        raise ValueError(f"more than {_MAX_DEPTH} brackets, or dashes in a line: no config is nested like that")
    import yaml  # here, since it is slow to import and most users of a run directory read no YAML

    try:
        return _load_by_section(content)
    except (yaml.YAMLError, ValueError):  # load it whole: for the line of an error, or for what only the whole means
        return yaml.load(content, _loader())


def _load_by_section(content: bytes) -> dict[Any, Any]:
    """Load YAML whose sections are mappings by themselves; a ValueError says that there may be more to it."""
    first, *sections = _SECTION.split(content)
    if first or not sections or b"&" in content or b"\n---" in content or b"\n..." in content:
        raise ValueError("not made of sections alone")
    mapping: dict[Any, Any] = {}
    for section in sections:
        mapping |= marshal.loads((_cached if len(section) <= _MAX_CACHED else _load_section)(section))
    return mapping


def _load_section(section: bytes) -> bytes:
    """Load a section that is a mapping of plain values; return it marshalled, the fastest form to copy from."""
    import yaml

    mapping = yaml.load(section, _loader())
    if not isinstance(mapping, dict):
        raise ValueError("no mapping")
    return marshal.dumps(mapping)


_cached = lru_cache(maxsize=4096)(_load_section)


@cache
def _loader() -> Any:
    import yaml

    class LoaderWithoutMerge(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Ignore merge keys: lists of lists of them make billions of values before anything can be counted."""

    return LoaderWithoutMerge
