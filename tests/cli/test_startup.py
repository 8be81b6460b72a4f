"""Help and errors take little more time than importing Hydra, and don't import torch.

The least processor time of several measurements counts, taken in turn: other load of the machine can only add to it.
They end with the second or a later one, as soon as all are short enough.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest
from support.studies import make_study

COMMANDS = {
    "litlab --help": ["--help"],
    "litlab train --help": ["train", "--help"],
    "litlab train --cfg job": ["train", "--cfg", "job"],
}
TORCH = ("torch", "lightning", "numpy", "torchmetrics", "tensorboard")
CONFIGS = ("hydra", "omegaconf")
PAGES = ("matplotlib", "jinja2", "optuna", "tensorboard")
LITLAB = "import sys; sys.argv = ['litlab', *sys.argv[1:]]; from litlab.cli.main import main; main()"
WRONG = ["train", "optimizer.lr=-1"]
REPEATS = 9
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


def list_imports(folder: Path, *arguments: str, heavy: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Call litlab, which prints at its end which of the heavy packages it has imported."""
    code = f"import atexit, sys; heavy = {heavy}\n"
    code += "atexit.register(lambda: print('imported:', [name for name in heavy if name in sys.modules]))\n"
    command = [sys.executable, "-c", code + LITLAB, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_answers_come_at_once(tmp_path: Path) -> None:
    limits = dict.fromkeys(COMMANDS, AT_MOST) | {"wrong": AT_MOST_WRONG}
    unit, least = inf, dict.fromkeys(limits, inf)
    for number in range(REPEATS):
        unit = min(unit, seconds(tmp_path, "import hydra"))
        least["wrong"] = min(least["wrong"], seconds(tmp_path, LITLAB, *WRONG, exit_code=1))
        for name, arguments in COMMANDS.items():
            least[name] = min(least[name], seconds(tmp_path, LITLAB, *arguments))
        slow = {name: value / unit for name, value in least.items() if value > limits[name] * unit}
        if number and not slow:
            return
    assert slow == {}, f"times that of `import hydra`, {unit:.2f} s"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_torch(name: str, tmp_path: Path) -> None:
    done = list_imports(tmp_path, *COMMANDS[name], heavy=TORCH)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nimported: []\n")
    assert list(tmp_path.iterdir()) == []


def test_all_errors_are_reported_without_torch(tmp_path: Path) -> None:
    done = list_imports(tmp_path, *WRONG, "data.batch_size=0", heavy=TORCH)
    assert (done.returncode, done.stdout) == (1, "imported: []\n")
    assert done.stderr.count("expected greater than") == 2


@pytest.mark.parametrize(
    ("arguments", "heavy", "text"),
    [
        (["compare", "s"], (*TORCH[:2], *CONFIGS, *PAGES, "scipy.stats"), "val/accuracy"),
        (["diff", "s/0000_seed-0", "s/0000_seed-0"], (*TORCH[:2], *CONFIGS, *PAGES, "scipy"), "config    the same"),
        (["status", "s"], ("torch", *CONFIGS, "pydantic", "rich", "numpy"), "1 completed, 1 failed, 1 interrupted"),
    ],
    ids=["compare", "diff", "status"],
)
def test_commands_that_read_runs_import_nothing_heavy(
    arguments: list[str], heavy: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    statuses = ["completed", "failed", "interrupted"]
    runs = make_study(
        tmp_path / "s", {"seed": [0, 1, 2]}, lambda point: 0.5, status=lambda point: statuses[point["seed"]]
    )
    runs[2].result.unlink()
    done = list_imports(tmp_path, *arguments, heavy=heavy)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    assert done.stdout.endswith("\nimported: []\n")
