"""Figures as files: which, with the same bytes for the same comparison, and nothing else touched."""

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from litlab.compare.model import Comparison
from litlab.compare.plots import figures
from litlab.compare.plots.files import save, svg
from litlab.errors import UserError


@pytest.fixture(scope="module")
def twice(grid: Comparison) -> list[dict[str, Any]]:
    few = replace(grid, labels=(), groups=grid.groups[:2])
    return [figures(few), figures(few)]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_comparison_gives_the_same_bytes(twice: list[dict[str, Any]], tmp_path: Path, kind: str) -> None:
    contents = []
    for part, drawn in enumerate(twice):
        written = save(drawn, tmp_path / str(part) / f"figure.{kind}")
        contents.append({file.name: file.read_bytes() for file in written})
    assert contents[0] == contents[1]
    names = ["figure.pdf"] if kind == "pdf" else [f"figure-curves.{kind}", f"figure-time.{kind}"]
    assert list(contents[0]) == names
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert all(content.startswith(start) for content in contents[0].values())
    assert not any(b"matplotlib v" in content.lower() for content in contents[0].values())


def test_one_figure_has_the_name_that_was_asked_for(drawn: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "one.SVG"
    assert save({"curves": drawn["curves"]}, file) == [file]
    assert svg(drawn["curves"]).startswith("<svg")
    assert "<text" not in file.read_text()  # but paths


def test_what_can_not_be_written_is_said(drawn: dict[str, Any], tmp_path: Path) -> None:
    one = {"curves": drawn["curves"]}
    with pytest.raises(UserError, match=r"figure\.jpg.*png, svg, pdf"):
        save(one, tmp_path / "figure.jpg")
    with pytest.raises(UserError, match="png, svg, pdf"):
        save(one, tmp_path / "figure")
    with pytest.raises(UserError, match="nothing to draw"):
        save({}, tmp_path / "figure.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        save(one, tmp_path / "folder.png")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        save(one, tmp_path / "file" / "figure.png")


def test_nothing_global_of_matplotlib_is_used_or_left_changed(grid: Comparison) -> None:
    import matplotlib

    few = replace(grid, labels=(), groups=grid.groups[:1])
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "text.parse_math": True, "axes.grid": False}):
        with_others = svg(figures(few)["curves"])
    assert dict(matplotlib.rcParams) == before
    assert svg(figures(few)["curves"]) == with_others


def test_another_process_draws_the_same_and_imports_neither_pyplot_nor_torch(grid: Comparison) -> None:
    code = f"""
import sys
from hashlib import sha256
from pathlib import Path
from litlab.compare.comparison import compare
from litlab.compare.plots import figures
from litlab.compare.plots.files import svg
assert "matplotlib" not in sys.modules
drawn = svg(figures(compare([Path({str(grid.directories[0])!r})]))["curves"])
assert not {{"matplotlib.pyplot", "torch", "optuna", "scipy.stats"}} & sys.modules.keys()
print(sha256(drawn.encode()).hexdigest())
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    here = svg(figures(replace(grid, baseline=None))["curves"])
    assert done.stdout.strip() == sha256(here.encode()).hexdigest(), done.stderr
