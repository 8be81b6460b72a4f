"""Real runs for the benchmarks: the frozen config and the worker that `litlab train` would use."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from litlab.config.compose import register_resolvers
from litlab.config.config_file import to_yaml
from litlab.config.freeze import freeze
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.runs.signature import sign

Train = Callable[..., RunDirectory]  # (directory, *overrides)
_CHECKOUT = Path(__file__).parents[1]


def compose_config(*overrides: str) -> dict[str, Any]:
    """Compose and freeze the config of these overrides."""
    register_resolvers()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        return freeze(compose(ROOT, ["name=benchmark", *overrides]))


def program(name: str, *arguments: object) -> str:
    """Run another benchmark module in a process and return its output; show its errors only if it fails."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


def new_run(directory: Path, config: dict[str, Any]) -> RunDirectory:
    """Create a signed run directory."""
    run = RunDirectory.create(directory, to_yaml(config), {})
    sign(run)
    return run


def work(run: RunDirectory) -> int:
    """Train or resume a run in a worker process that can import `benchmarks`; return its exit code."""
    command = [sys.executable, "-m", "litlab.training.worker", str(run.path)]
    return subprocess.run(command, cwd=_CHECKOUT, stdout=subprocess.DEVNULL).returncode


def in_worker(directory: Path, *overrides: str) -> RunDirectory:
    """Train a whole run in a worker process."""
    run = new_run(directory, compose_config(*overrides))
    code = work(run)
    assert (code, read_result(run)["status"]) == (0, "completed")
    return run
