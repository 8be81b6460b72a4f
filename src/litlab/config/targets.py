"""Checks of foreign targets: classes that the schema doesn't know must be importable and take their arguments.

Importing them may import torch, or anything else. So `litlab train` leaves that to a short process of its own.
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
from litlab.config.tree import Config, did_you_mean, nodes
from litlab.errors import UserError

Call = tuple[str, str, tuple[str, ...]]  # dotted key, target, names of the arguments

# Arguments that training/build.py passes to a constructor that has parameters of these names.
FACTS = ("num_classes", "class_names", "image_shape", "mean", "std")  # of the data set
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


# Callbacks of Lightning whose runs could not be resumed exactly: why, and the way on.
UNRESUMABLE = {
    "LearningRateFinder": (
        "sets the learning rate while a run starts, so the config would not hold it",
        "find it by a multirun, as in -m optimizer.lr=0.01,0.1, or in a script by the Tuner of Lightning, and set it",
    ),
    "BatchSizeFinder": (
        "sets the size of a batch while a run starts, so the config would not hold it",
        "find it in a script by the Tuner of Lightning, and set it, as in data.batch_size=256",
    ),
    "StochasticWeightAveraging": (
        "changes the loops of the Trainer, so a run that is stopped and resumed would end differently",
        "average the weights by callbacks=ema",
    ),
    "ModelPruning": (
        "does not save its masks, so a run that is stopped and resumed would end differently",
        "prune the network after the training, in a script by torch.nn.utils.prune",
    ),
}


def check_foreign(config: Config, project: Path | None = None) -> None:
    """Import every foreign target of a resolved config and compare its arguments with its signature.

    Args:
        config: Config, or some of its groups.
        project: Folder whose packages are importable; by default the current one.

    Raises:
        UserError: With a line for each problem.
    """
    if problems := foreign_problems([config], project)[0]:
        raise UserError("\n".join(problems))


def foreign_problems(configs: Sequence[Config], project: Path | None = None) -> list[list[str]]:
    """Return the problems of each of several configs, checked in a single process; see `check_foreign`.

    Raises:
        UserError: If an import ends that process.
    """
    calls = [
        [
            (key, node["_target_"], tuple(name for name in node if not name.startswith("_")))
            for key, node in nodes(config)
            if node["_target_"] not in SECTIONS
        ]
        for config in configs
    ]
    distinct = tuple(dict.fromkeys(call for calls_of_config in calls for call in calls_of_config))
    problems = dict(zip(distinct, _check_in_process(distinct, project) if distinct else (), strict=True))
    return [[problem for call in calls_of_config if (problem := problems[call])] for calls_of_config in calls]


@cache
def _check_in_process(calls: tuple[Call, ...], project: Path | None) -> tuple[str | None, ...]:
    """Return the problem of each call, or None. Cached, since all jobs of a search have the same."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "litlab.config.targets"],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        cwd=project,
    )
    last = process.stdout.rstrip().rpartition("\n")[2]  # an import may print something before
    if process.returncode != 0 or not last.startswith("["):
        targets = ", ".join(dict.fromkeys(target for _, target, _ in calls))
        raise UserError(f"importing {targets} ended the process:\n{process.stderr.strip()}")
    return tuple(json.loads(last))


def import_target(target: str) -> Any:
    """Import the class or function with the dotted name `package.module.Class`.

    Raises:
        UserError: If there is no such module or attribute, or if an import in the module fails.
    """
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            value: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
                raise UserError(f"{module} cannot be imported: {error}") from error
            continue
        for name in parts[split:]:
            if not hasattr(value, name):
                raise UserError(f"{target}: {value.__name__} has no {name!r}{did_you_mean(name, dir(value))}")
            value = getattr(value, name)
        return value
    raise UserError(
        f"{target}: there is no module {parts[0]!r} here; "
        "is the project's package installed, or in this folder or its src/?"
    )


def find_resume_problem(callback: Any) -> str | None:
    """Return why runs with a callback of this class could not be resumed exactly, and what to do; None if they can."""
    for base in getattr(callback, "__mro__", ()):
        if base.__module__.startswith("lightning.pytorch.callbacks.") and base.__name__ in UNRESUMABLE:
            reason, remedy = UNRESUMABLE[base.__name__]
            return f"{base.__name__} {reason}: {remedy}"
    return None


def _check(path: str, target: str, arguments: list[str]) -> str | None:
    try:
        value = import_target(target)
    except UserError as error:
        return f"{path}._target_: {error}"
    except Exception as error:  # a module of the user's own may raise anything
        return f"{path}._target_: importing {target} raised {type(error).__name__}: {error}"
    if not callable(value):
        return f"{path}._target_: {target} is a {type(value).__name__}, not a class"
    if problem := find_resume_problem(value):
        return f"{path}._target_: {problem}"
    return _signature_problem(path, target, value, arguments)


def _signature_problem(path: str, target: str, function: Callable[..., Any], arguments: list[str]) -> str | None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None  # written in C without a signature: it checks its arguments itself
    kinds = inspect.Parameter
    takes_any = any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, p in parameters.items() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    for name in arguments:
        if name not in names and not takes_any:
            return f"{path}.{name}: {target} takes no argument {name!r}{did_you_mean(name, names)}"
    given = {*arguments, *INJECTED[path.partition(".")[0]]}
    needed = [name for name in names if parameters[name].default is kinds.empty and name not in given]
    if path in ("optimizer", "schedule"):
        needed = [name for name in needed if name != names[0]]  # passed by position
    return f"{path}: {target} needs {', '.join(needed)}; set {path}.{needed[0]}=..." if needed else None


if __name__ == "__main__":
    from litlab.config.paths import add_project_to_path

    add_project_to_path()
    print(json.dumps([_check(*call) for call in json.load(sys.stdin)]))
