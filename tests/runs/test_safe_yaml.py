"""Untrusted YAML is refused before it exhausts the stack or the memory."""

import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.thorough import examples

from litlab.runs.safe_yaml import _loader, load_yaml

MERGED = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{a: " * 30_000, b"- " * 60_000, b"? " * 60_000])
def test_deep_nesting_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no config is nested like that"):
        load_yaml(content)


@pytest.mark.parametrize("content", [b"[" * 5000, b"- " * 5000, b"\n".join(b" " * n + b"a:" for n in range(700))])
def test_nesting_below_the_limit_does_not_crash(content: bytes) -> None:
    """Load it in a process with the usual stack of 8 MB."""
    code = f"import yaml\nfrom litlab.runs.safe_yaml import load_yaml\ntry: load_yaml({content!r})\n"
    code += "except (yaml.YAMLError, RecursionError): pass\n"
    assert subprocess.run([sys.executable, "-"], input=code.encode()).returncode == 0


def test_merge_keys_are_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="merge"):
        load_yaml(MERGED)


def test_many_short_lines_are_accepted_and_objects_refused() -> None:
    assert load_yaml(b"a:\n" + b"- x-y\n" * 9000) == {"a": ["x-y"] * 9000}
    with pytest.raises(yaml.YAMLError):
        load_yaml(b"!!python/object/apply:os.getpid []")


PIECES = [
    "a:", "b: ", "_c: 1\n", "a: x\n", "yes: no\n", "\n", "  ", " ", "- ", "- 1\n", "? ", ": ", "x", "'", '"', "|\n",
    ">-\n", "|+\n", "#", "# b: 1\n", "---", "--- a\n", "...", "\n...\n", "[", "]", "{", "}", ", ", "&a ", "*a",
    "!!str ", "<<: {}\n", "=: 1\n", "2026-01-31", "0x1f", "1_0", ".nan", "~", "\t", "\r", "\u2028", "\ufeff", "\0",
    "%YAML 1.1\n", "é: 1\n", "a: [1,\nb: 2]\n", "a: 'x\nb: y'\n", "a: |\n  t\nb: 2\n", "a: &a [1]\nb: *a\n",
    "a:\n- 1\n- b: 2\nc: 3\n",
]  # fmt: skip


def outcome(load, content: bytes) -> str:
    """Return the value with types, order and NaN, or the text of the error with its position."""
    try:
        return repr(load(content))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        return f"{type(error)} {error}"


@examples(300)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_sections_give_the_same_as_the_whole(text: str) -> None:
    content = text.encode()
    expected = outcome(lambda whole: yaml.load(whole, _loader()), content)
    assert outcome(load_yaml, content) == expected
    assert outcome(load_yaml, content) == expected, "so do cached sections"


def test_loaded_values_are_not_shared() -> None:
    first = load_yaml(b"a: [1]\nb: {c: 2}\n")
    first["a"].append(2)
    first["b"]["c"] = 3
    assert load_yaml(b"a: [1]\nb: {c: 2}\n") == {"a": [1], "b": {"c": 2}}
