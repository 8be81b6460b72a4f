"""The check of foreign targets by a fork that has imported torch, instead of a new interpreter."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.warm import run_warm

from litlab.config.targets import foreign_problems


def warm_foreign_problems(configs: Sequence[dict[str, Any]], project: Path) -> list[list[str]]:
    """Return what `foreign_problems` returns."""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(configs, file)
        file.flush()
        command = ["support.warm_targets", file.name, str(project)]
        done = run_warm(command, project, timeout=100, environment=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    problems: list[list[str]] = json.loads(done.stdout)
    return problems


if __name__ == "__main__":
    print(json.dumps(foreign_problems(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))))
