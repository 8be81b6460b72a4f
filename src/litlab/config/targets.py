"""Checks of foreign targets: classes that the schema doesn't know must be importable and take their arguments.

Importing them may import torch, or anything else. So `litlab train` leaves that to a short process of its own.
"""

import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litlab.config.schema import SECTIONS
from litlab.config.tree import Config, children, did_you_mean, join, lies_under, nodes
from litlab.errors import UserError

HYDRA_KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")  # of a node, which are no arguments
# Functions of Hydra that return the class, function or object with the dotted name `path`.
_GETTERS = tuple(f"hydra.utils.get_{kind}" for kind in ("class", "method", "static_method", "object"))
# Classes of Lightning that can be imported without the package that they need -> its module.
_NEEDED_MODULES = {
    "CometLogger": "comet_ml",
    "LitLogger": "litlogger",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
}

# Arguments that training/build.py passes to a constructor that has parameters of these names.
FACTS = ("num_classes", "class_names", "class_counts", "image_shape", "mean", "std")  # of the data set
INJECTED: dict[str, tuple[str, ...]] = {
    "data": (),
    "model": FACTS,
    "task": ("network", "optimizer", "schedule", *FACTS),
    "task.loss": ("reduction", *FACTS),
    "optimizer": ("params",),
    "schedule": ("optimizer", "total_steps"),
    "callbacks": FACTS,
    "logger": ("save_dir",),
    "trainer": (),
}
_CALLED_LATER = ("optimizer", "schedule")  # groups whose class gets these when it is called, and nodes inside do not


@dataclass(frozen=True)
class Call:
    """Call of a target, as a config describes it.

    Attributes:
        key: Dotted key of the node.
        target: Dotted name of what is called.
        arguments: Names of the arguments; None if it is imported, but not called.
        num_positional: Number of arguments by position, `_args_`.
        is_partial: Whether it is called later, perhaps with more arguments.
        is_inner: Whether the node is inside another one.
    """

    key: str
    target: str
    arguments: Sequence[str] | None
    num_positional: int = 0
    is_partial: bool = False
    is_inner: bool = False


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
    # Nodes inside the task are among its calls.
    calls = [
        [call for key, node in nodes(config) if not key.startswith("task.") for call in _calls(key, node)]
        for config in configs
    ]
    distinct = tuple(dict.fromkeys(call for calls_of_config in calls for call in calls_of_config))
    problems = dict(zip(distinct, _check_in_process(distinct, project) if distinct else (), strict=True))
    return [[problem for call in calls_of_config if (problem := problems[call])] for calls_of_config in calls]


def _calls(key: str, node: Config, *, is_inner: bool = False) -> Iterator[Call]:
    """Yield the calls of foreign targets in a node and in the nodes inside it, as training/build.py makes them."""
    target, args = node["_target_"], node.get("_args_", [])
    if not isinstance(target, str):
        raise UserError(f"{key}._target_: names the class to build, as in package.module.Class; found {target!r}")
    names = tuple(name for name in node if name not in HYDRA_KEYS)
    if target not in SECTIONS or is_inner:
        num_positional = len(args) if isinstance(args, list) else 0
        yield Call(key, target, names, num_positional, is_inner and bool(node.get("_partial_")), is_inner)
    if target in _GETTERS and isinstance(node.get("path"), str):
        yield Call(f"{key}.path", node["path"], None)
    if node.get("_recursive_", True):
        for name in (*names, "_args_"):
            yield from _inner_calls(join(key, name), node.get(name))


def _inner_calls(key: str, value: Any) -> Iterator[Call]:
    if isinstance(value, dict) and "_target_" in value:
        yield from _calls(key, value, is_inner=True)
    else:
        for name, item in children(value):
            yield from _inner_calls(join(key, name), item)


@cache
def _check_in_process(calls: tuple[Call, ...], project: Path | None) -> tuple[str | None, ...]:
    """Return the problem of each call, or None. Cached, since all jobs of a search have the same."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "litlab.config.targets"],
        input=json.dumps([asdict(call) for call in calls]),
        capture_output=True,
        text=True,
        cwd=project,
    )
    last = process.stdout.rstrip().rpartition("\n")[2]  # an import may print something before
    if process.returncode != 0 or not last.startswith("["):
        targets = ", ".join(dict.fromkeys(call.target for call in calls))
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


def _problem(call: Call) -> str | None:
    where = call.key if call.arguments is None else f"{call.key}._target_"
    try:
        value = import_target(call.target)
    except UserError as error:
        return f"{where}: {error}"
    except Exception as error:  # a module of the user's own may raise anything
        return f"{where}: importing {call.target} raised {type(error).__name__}: {error}"
    if call.arguments is None:
        return None
    if not callable(value):
        return f"{where}: {call.target} is a {type(value).__name__}, not a class"
    if problem := find_resume_problem(value):
        return f"{where}: {problem}"
    return _needed_module_problem(where, call.target, value) or _signature_problem(call, call.arguments, value)


def _needed_module_problem(where: str, target: str, value: Any) -> str | None:
    """Return a problem if a class of Lightning, or one that inherits from it, needs a package that is not installed."""
    for base in inspect.getmro(value) if inspect.isclass(value) else ():
        module = _NEEDED_MODULES.get(base.__name__, "")
        is_of_lightning = base.__module__.startswith(("lightning.", "pytorch_lightning."))
        if module and is_of_lightning and importlib.util.find_spec(module) is None:
            return f"{where}: {target} needs the package {module}, which is not installed here; install it"
    return None


def _signature_problem(call: Call, arguments: Sequence[str], function: Callable[..., Any]) -> str | None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None  # written in C without a signature: it checks its arguments itself
    kinds = inspect.Parameter
    found = {name: parameter.kind for name, parameter in parameters.items()}
    positional = [n for n, kind in found.items() if kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    names = [n for n, kind in found.items() if kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    taken = positional[: call.num_positional]  # by _args_
    if call.num_positional > len(positional) and kinds.VAR_POSITIONAL not in found.values():
        return f"{call.key}._args_: {call.target} takes at most {len(positional)} arguments by position"
    for name in arguments:
        if name not in names and kinds.VAR_KEYWORD not in found.values():
            return f"{call.key}.{name}: {call.target} takes no argument {name!r}{did_you_mean(name, names)}"
        if name in taken:
            return f"{call.key}.{name}: {call.target} gets {name!r} by position already, in _args_"
    group = call.key.partition(".")[0]
    group_or_loss = "task.loss" if lies_under(call.key, "task.loss") else group
    injected = () if call.is_inner and group in _CALLED_LATER else INJECTED[group_or_loss]
    given = {*arguments, *injected, *taken}
    needed = [] if call.is_partial else [n for n in names if parameters[n].default is kinds.empty and n not in given]
    if group in _CALLED_LATER and not call.is_inner:
        needed = [name for name in needed if name != names[0]]  # passed by position
    return f"{call.key}: {call.target} needs {', '.join(needed)}; set {call.key}.{needed[0]}=..." if needed else None


if __name__ == "__main__":
    from litlab.config.paths import add_project_to_path

    add_project_to_path()
    print(json.dumps([_problem(Call(**call)) for call in json.load(sys.stdin)]))
