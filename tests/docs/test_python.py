"""The section "Python" of docs/extending.md, as a script or notebook would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.snippets import read_snippets

pytestmark = pytest.mark.integrations

TRAIN, READ, FRAME = [content for language, content in read_snippets("extending.md", "Python").blocks]
QUICKSTART = """\
# @package _global_
defaults:
  - override /data: shapes
  - override /trainer: cpu
threads: 1
data: {num_train: 200, num_test: 53, val_size: 40, batch_size: 16}
model: {widths: [2, 4], hidden: [8]}
trainer: {max_epochs: 1}
"""


def run_script(code: str, project: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the first block in a project with a quickstart of its own, which takes a second."""
    folder = tmp_path_factory.mktemp("python")
    file = folder / "conf" / "experiment" / "quickstart.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(QUICKSTART)
    output = run_script(TRAIN, folder)
    assert output.count("epoch 1/1 validation") == 1
    assert len(re.findall(r"^000\d_\S+ +completed +\d", output, re.MULTILINE)) == 4
    return folder


def test_results_are_read_and_used(project: Path) -> None:
    run_script(READ, project)


def test_a_data_frame(project: Path) -> None:
    assert "0.01" in run_script(FRAME, project)
