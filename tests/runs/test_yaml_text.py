"""YAML of strangers: refused before it takes the process or the memory."""

import subprocess
import sys

import pytest
import yaml

from litlab.runs.yaml_text import load_yaml

MERGED = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{a: " * 30_000, b"- " * 60_000, b"? " * 60_000])
def test_no_depth_that_overflows_the_stack(content: bytes) -> None:
    with pytest.raises(ValueError, match="no config is nested like that"):
        load_yaml(content)


@pytest.mark.parametrize("content", [b"[" * 5000, b"- " * 5000, b"\n".join(b" " * n + b"a:" for n in range(700))])
def test_what_is_just_not_refused_is_survived(content: bytes) -> None:
    """By a process with the usual stack of 8 MB."""
    code = f"import yaml\nfrom litlab.runs.yaml_text import load_yaml\ntry: load_yaml({content!r})\n"
    code += "except (yaml.YAMLError, RecursionError): pass\n"
    assert subprocess.run([sys.executable, "-"], input=code.encode()).returncode == 0


def test_no_merge_keys() -> None:
    with pytest.raises(yaml.YAMLError, match="merge"):
        load_yaml(MERGED)


def test_many_short_lines_and_no_objects() -> None:
    assert load_yaml(b"a:\n" + b"- x-y\n" * 9000) == {"a": ["x-y"] * 9000}
    with pytest.raises(yaml.YAMLError):
        load_yaml(b"!!python/object/apply:os.getpid []")
