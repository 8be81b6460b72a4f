"""Help and errors take little more time than importing Hydra, and don't import torch.

The least processor time of several measurements counts, taken in turn: other load of the machine can only add to it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from litlab.cli.train import help_text

COMMANDS = {
    "litlab --help": ["--help"],
    "litlab train --help": ["train", "--help"],
    "litlab train --cfg job": ["train", "--cfg", "job"],
}
LITLAB = "import sys; sys.argv = ['litlab', *sys.argv[1:]]; from litlab.cli.main import main; main()"
WRONG = ["train", "optimizer.lr=-1"]
REPEATS = 5
AT_MOST = 2.5
AT_MOST_WRONG = 4


def seconds(folder: Path, code: str, *arguments: str, exit_code: int = 0) -> float:
    """Processor time of `python -c code arguments`."""
    command = [sys.executable, "-c", code, *arguments]
    errors = subprocess.DEVNULL if exit_code else None
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == exit_code
    return usage.ru_utime + usage.ru_stime


def test_answers_come_at_once(tmp_path: Path) -> None:
    measured: dict[str, list[float]] = {name: [] for name in ("import hydra", "wrong", *COMMANDS)}
    for _ in range(REPEATS):
        measured["import hydra"].append(seconds(tmp_path, "import hydra"))
        measured["wrong"].append(seconds(tmp_path, LITLAB, *WRONG, exit_code=1))
        for name, arguments in COMMANDS.items():
            measured[name].append(seconds(tmp_path, LITLAB, *arguments))
    least = {name: min(values) for name, values in measured.items()}
    unit = least.pop("import hydra")
    assert least.pop("wrong") < AT_MOST_WRONG * unit
    limit = AT_MOST * unit
    assert {name: value for name, value in least.items() if value > limit} == {}, f"limit {limit:.2f} s"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_torch(name: str, tmp_path: Path) -> None:
    code = "import atexit, sys\n"
    code += "heavy = ('torch', 'lightning', 'numpy', 'torchmetrics', 'tensorboard')\n"
    code += "atexit.register(lambda: print(*(name for name in heavy if name in sys.modules), file=sys.stderr))\n"
    command = [sys.executable, "-c", code + LITLAB, *COMMANDS[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_names_what_can_be_chosen() -> None:
    lines = help_text(["--help", "model=resnet18"]).splitlines()
    groups = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
    assert groups["data"] == "cifar10, image_folder, shapes"
    assert groups["model"].split(", ") == ["cnn", "resnet18", "torchvision", "whitened"]
    assert "sprint" in groups["experiment"]
    assert "data/base" not in groups
    assert "  _target_: litlab.models.resnet.ResNet18" in lines
