"""Checks the targets that the schema doesn't know: can they be imported, and do they take these arguments?

Importing them may import torch, or anything else. So `litlab train` asks a short process, before anything is written.
"""

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from litlab.config.schema import SECTIONS
from litlab.config.suggestions import nearest
from litlab.config.tree import Config
from litlab.config.validate import nodes
from litlab.errors import UserError

Row = tuple[str, str, tuple[str, ...]]  # path, target, names of the arguments

# What experiment.py hands to a constructor that names it.
FACTS = ("num_classes", "class_names", "image_shape", "mean", "std")  # of the data
INJECTED: dict[str, tuple[str, ...]] = {
    "data": (),
    "model": FACTS,
    "task": ("network", "optimizer", "schedule", *FACTS),
    "optimizer": ("params",),
    "schedule": ("optimizer", "total_steps"),
    "callbacks": FACTS,
    "logger": ("save_dir",),
    "trainer": (),
}


def check_foreign(config: Config, project: Path | None = None) -> None:
    """Import every foreign target of a resolved config and hold its arguments against its signature.

    Args:
        config: the whole, or the groups to look at.
        project: the folder whose packages are importable; by default the current one.

    Raises:
        UserError: with a line for each problem.
    """
    if problems := foreign_problems([config], project)[0]:
        raise UserError("\n".join(problems))


def foreign_problems(configs: Sequence[Config], project: Path | None = None) -> list[list[str]]:
    """The same for several configs by a single process: the problems of each.

    Raises:
        UserError: if an import ends that process.
    """
    rows = [[_row(*each) for each in nodes(config) if each[1]["_target_"] not in SECTIONS] for config in configs]
    distinct = list(dict.fromkeys(row for of_one in rows for row in of_one))
    said = dict(zip(distinct, _asked(tuple(distinct), project) if distinct else (), strict=True))
    return [[problem for row in of_one if (problem := said[row])] for of_one in rows]


def _row(path: str, node: Config) -> Row:
    return path, node["_target_"], tuple(key for key in node if not key.startswith("_"))


@cache
def _asked(rows: tuple[Row, ...], project: Path | None) -> tuple[str | None, ...]:
    """What is wrong with each, by the process that imports them; a search asks the same for every job."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "litlab.config.targets"],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        cwd=project,
    )
    last = process.stdout.rstrip().rpartition("\n")[2]  # what an import prints comes before
    if process.returncode != 0 or not last.startswith("["):
        targets = ", ".join(dict.fromkeys(target for _, target, _ in rows))
        raise UserError(f"importing {targets} ended the process:\n{process.stderr.strip()}")
    return tuple(json.loads(last))


def find(target: str) -> Any:
    """Import `package.module.Class`.

    Raises:
        UserError: if there is no such module or attribute; the error inside a module that fails is shown.
    """
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
                raise UserError(f"{module} cannot be imported: {error}") from error
            continue
        for name in parts[split:]:
            if not hasattr(found, name):
                raise UserError(f"{target}: {found.__name__} has no {name!r}{nearest(name, dir(found))}")
            found = getattr(found, name)
        return found
    raise UserError(
        f"{target}: there is no module {parts[0]!r} here; "
        "is the project's package installed, or in this folder or its src/?"
    )


def _check(path: str, target: str, arguments: list[str]) -> str | None:
    try:
        found = find(target)
    except UserError as error:
        return f"{path}._target_: {error}"
    except Exception as error:  # a module of the user's own may raise anything
        return f"{path}._target_: importing {target} raised {type(error).__name__}: {error}"
    if not callable(found):
        return f"{path}._target_: {target} is a {type(found).__name__}, not a class"
    return _mismatch(path, target, found, arguments)


def _mismatch(path: str, target: str, found: Callable[..., Any], arguments: list[str]) -> str | None:
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):
        return None  # built in C without a signature: its own check must do
    kinds = inspect.Parameter
    takes_any = any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, p in parameters.items() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    for name in arguments:
        if name not in names and not takes_any:
            return f"{path}.{name}: {target} takes no argument {name!r}{nearest(name, names)}"
    given = {*arguments, *INJECTED[path.partition(".")[0]]}
    needed = [name for name in names if parameters[name].default is kinds.empty and name not in given]
    if path == "optimizer" or path == "schedule":
        needed = [name for name in needed if name != names[0]]  # handed over by position
    return f"{path}: {target} needs {', '.join(needed)}; set {path}.{needed[0]}=..." if needed else None


if __name__ == "__main__":
    from litlab.config.paths import add_project_to_path

    add_project_to_path()
    print(json.dumps([_check(*row) for row in json.load(sys.stdin)]))
