"""Checks of foreign targets: classes that the schema doesn't know must be importable and take their arguments.

Importing them may import torch, or anything else. So `litlab train` leaves that to a short process of its own, which
also tells which of litlab's classes they inherit from: the schema holds for subclasses, too.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litlab.config.schema import BASE_SECTIONS, FACTS, OPTIONAL_PACKAGES, SCHEDULE_KEYS, SECTIONS
from litlab.config.tree import Config, children, did_you_mean, join, lies_under, nodes, walk
from litlab.config.validate import default_keys_problem, subclass_problems
from litlab.errors import UserError

MAX_LISTED = 8  # classes in a message
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
_OTHER_LIGHTNING = "pytorch_lightning"
_LIGHTNING_HOOKS = "lightning.pytorch.core.hooks"  # where Lightning defines the methods that a module may override

# Arguments that training/build.py passes to a constructor that has parameters of these names.
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
# Config group -> argument by which a task takes it. Without that argument, the group would be ignored.
_TAKEN_BY_TASK = {"model": "network", "optimizer": "optimizer", "schedule": "schedule"}
# Packages whose functions document that `**kwargs` takes `num_classes`.
_NUM_CLASSES_IN_KWARGS = ("torchvision.models", "timm.models")
# Arguments that the classification metrics of torchmetrics take by `**kwargs`.
_METRIC_KWARGS = (
    "compute_on_cpu", "dist_sync_on_step", "process_group", "dist_sync_fn", "distributed_available_fn",
    "sync_on_compute", "compute_with_cache",
)  # fmt: skip
_BY_POSITION = {"optimizer": "params", "schedule": "optimizer"}  # for a constructor without a parameter of that name
# Schedules of which it is known, without importing them, that the number of steps does not matter to them.
_ENDLESS_SCHEDULES = ("litlab.optim.schedules.constant", "torch.optim.lr_scheduler.ReduceLROnPlateau")


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
        required_methods: Methods of LightningModule that the class has to override.
    """

    key: str
    target: str
    arguments: Sequence[str] | None
    num_positional: int = 0
    is_partial: bool = False
    is_inner: bool = False
    required_methods: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """Result of the check of a call.

    Attributes:
        problem: Why it would fail; None if it would not.
        base: Nearest class of litlab's, with a section in the schema, that the target inherits from; None for none.
        parameters: Names of the arguments that the target takes; None if that is not known.
    """

    problem: str | None
    base: str | None = None
    parameters: tuple[str, ...] | None = None


# Callbacks of Lightning that no run can have: why, and the way on.
REFUSED_CALLBACKS = {
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
    "ProgressBar": (
        "is a second progress bar, beside that of litlab",
        "leave it out, as litlab shows the progress on a terminal, and prints lines where the output is none",
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


def foreign_problems(
    configs: Sequence[Config], project: Path | None = None, *, separate: bool = True
) -> list[list[str]]:
    """Return the problems of each of several configs, checked in a single process; see `check_foreign`.

    Args:
        configs: Configs, or some of their groups.
        project: Folder whose packages are importable; by default the current one.
        separate: Import the targets in a process of its own; else here, where those of the project are importable.

    Raises:
        UserError: If an import ends that process.
    """
    # Nodes inside the task are among its calls.
    calls = [
        [call for key, node in nodes(config) if not key.startswith("task.") for call in _calls(key, node, config)]
        for config in configs
    ]
    distinct = tuple(dict.fromkeys(call for calls_of_config in calls for call in calls_of_config))
    checked = _check_in_process(distinct, project) if separate and distinct else map(_report, distinct)
    reports = dict(zip(distinct, checked, strict=True))
    return [
        _problems(config, {call: reports[call] for call in calls_of_config})
        for config, calls_of_config in zip(configs, calls, strict=True)
    ]


def _problems(config: Config, reports: Mapping[Call, Report]) -> list[str]:
    problems = _missing_packages(config) + [report.problem for report in reports.values() if report.problem]
    bases = {call.target: report.base for call, report in reports.items() if report.base}
    return problems or [*_unused_groups(config, reports), *subclass_problems(config, bases)]


def _missing_packages(config: Config) -> list[str]:
    """Return a problem for each of litlab's classes that needs a package which is not installed."""
    return [
        f"{key}: needs the package {package}, which is not installed here: pip install {package}"
        for key, node in nodes(config)
        if (package := OPTIONAL_PACKAGES.get(node["_target_"])) and importlib.util.find_spec(package) is None
    ]


def _unused_groups(config: Config, reports: Mapping[Call, Report]) -> list[str]:
    """Return a problem if the task of the user's own does not get groups that the config has."""
    for call, report in reports.items():
        if call.key != "task" or report.parameters is None:
            continue
        groups = {group: name for group, name in _TAKEN_BY_TASK.items() if config.get(group)}
        lacking = [group for group, name in groups.items() if name not in report.parameters]
        own = [group for group, name in groups.items() if name in (call.arguments or ())]
        if lacking or own:
            reasons = [f"takes no argument {' or '.join(groups[group] for group in lacking)}"] if lacking else []
            reasons += [f"has {' and '.join(f'task.{groups[group]}' for group in own)}"] if own else []
            return [
                f"task: {call.target} {' and '.join(reasons)}, so {', '.join([*lacking, *own])} of the config would "
                f"change nothing; leave out what it makes itself: {' '.join(f'~{group}' for group in [*lacking, *own])}"
            ]
    return []


def _calls(key: str, node: Config, config: Config, *, is_inner: bool = False) -> Iterator[Call]:
    """Yield the calls of foreign targets in a node and in the nodes inside it, as training/build.py makes them."""
    target, args = node["_target_"], node.get("_args_", [])
    if not isinstance(target, str):
        raise UserError(f"{key}._target_: names the class to build, as in package.module.Class; found {target!r}")
    names = tuple(name for name in node if name not in HYDRA_KEYS)
    if target not in SECTIONS or is_inner:
        num_positional = len(args) if isinstance(args, list) else 0
        required = ("train_dataloader",) if key == "task" and config.get("data", {}) is None else ()
        yield Call(key, target, names, num_positional, is_inner and bool(node.get("_partial_")), is_inner, required)
    if target in _GETTERS and isinstance(node.get("path"), str):
        yield Call(f"{key}.path", node["path"], None)
    if node.get("_recursive_", True):
        for name in (*names, "_args_"):
            yield from _inner_calls(join(key, name), node.get(name), config)


def _inner_calls(key: str, value: Any, config: Config) -> Iterator[Call]:
    if isinstance(value, dict) and "_target_" in value:
        yield from _calls(key, value, config, is_inner=True)
    else:
        for name, item in children(value):
            yield from _inner_calls(join(key, name), item, config)


@cache
def _check_in_process(calls: tuple[Call, ...], project: Path | None) -> tuple[Report, ...]:
    """Return the report of each call. Cached, since all jobs of a search have the same."""
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
    return tuple(
        Report(problem, base, None if names is None else tuple(names)) for problem, base, names in json.loads(last)
    )


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
                raise UserError(f"{target}: {value.__name__} has no {name!r}{_similar_names(value, name)}")
            value = getattr(value, name)
        return value
    raise UserError(
        f"{target}: there is no module {parts[0]!r} here; "
        "is the project's package installed, or in this folder or its src/?"
    )


def _similar_names(owner: Any, name: str) -> str:
    """Return a hint at what a name that a module or class does not have may mean: `; did you mean Net`."""
    if hint := did_you_mean(name, dir(owner)):
        return hint
    if not inspect.ismodule(owner):
        return ""
    for part in vars(owner).values():
        if inspect.ismodule(part) and part.__name__.startswith(f"{owner.__name__}.") and hasattr(part, name):
            return f"; did you mean {part.__name__}.{name}"
    own = [
        key
        for key, value in vars(owner).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == owner.__name__
    ]
    listed = ", ".join(own[:MAX_LISTED]) + f" and {len(own) - MAX_LISTED} more" * (len(own) > MAX_LISTED)
    return f"; it has {listed}" if own else ""


def find_callback_problem(callback: Any) -> str | None:
    """Return why no run can have a callback of this class, and what to do; None if one can."""
    for base in getattr(callback, "__mro__", ()):
        if base.__module__.startswith("lightning.pytorch.callbacks.") and base.__name__ in REFUSED_CALLBACKS:
            reason, remedy = REFUSED_CALLBACKS[base.__name__]
            return f"{base.__name__} {reason}: {remedy}"
    return None


def find_base(target: Any) -> str | None:
    """Return the dotted name of the nearest class of the schema that a class is or inherits from; None for none."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in getattr(target, "__mro__", ()))
    return next((name for name in names if name in BASE_SECTIONS), None)


def constructor_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function by name, with those that its `**kwargs` are known to take.

    A subclass of one of litlab's classes takes by `**kwargs` what its base takes, except what it passes itself, as in
    `super().__init__(mixup=0.0, **kwargs)`. Networks of torchvision and timm take `num_classes`, classification metrics
    of torchmetrics the arguments of all metrics.

    Raises:
        TypeError, ValueError: If it has no signature, as some that are written in C.
    """
    parameters = dict(inspect.signature(target).parameters)
    open_ended = next((name for name, value in parameters.items() if value.kind is value.VAR_KEYWORD), None)
    if open_ended is None:
        return parameters
    base = find_base(target)
    if base is not None:
        del parameters[open_ended]
        inherited = _inherited_parameters(target, base)
        return parameters | {name: value for name, value in inherited.items() if name not in parameters}
    module = str(getattr(target, "__module__", None))
    constructor_module = str(getattr(target.__init__, "__module__", None))
    if lies_under(constructor_module, "torchmetrics.classification", "torchmetrics.metric"):
        del parameters[open_ended]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return parameters | {name: inspect.Parameter(name, keyword, default=None) for name in _METRIC_KWARGS}
    if lies_under(module, *_NUM_CLASSES_IN_KWARGS) and "num_classes" not in parameters:
        parameters["num_classes"] = inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY, default=None)
    return parameters


def _inherited_parameters(target: Any, base: str) -> dict[str, inspect.Parameter]:
    """Return what the constructors of a subclass and its bases take by name, as far as each passes `**kwargs` on."""
    taken: dict[str, inspect.Parameter] = {}
    passed: set[str] = set()
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        found = list(inspect.signature(owner.__init__).parameters.values())[1:]
        kinds = inspect.Parameter
        for parameter in found:
            if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY) and parameter.name not in passed:
                taken.setdefault(parameter.name, parameter.replace(kind=kinds.KEYWORD_ONLY))
        if not any(parameter.kind is kinds.VAR_KEYWORD for parameter in found):
            break
        if f"{owner.__module__}.{owner.__qualname__}" == base:  # its `**settings` are those of the section
            for name in BASE_SECTIONS[base].model_fields:
                if name not in passed:
                    taken.setdefault(name, kinds(name, kinds.KEYWORD_ONLY))
            break
        passed |= _passed_arguments(owner.__init__)
    return taken


def _passed_arguments(constructor: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that a constructor itself passes on, as in `super().__init__(mixup=0.0)`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return set()
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    constructors = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__")
    return {keyword.arg for call in constructors for keyword in call.keywords if keyword.arg}


def needs_total_steps(schedule: Config) -> bool:
    """Return True if a schedule, or one inside it, gets the number of steps, since the config does not set it.

    Raises:
        UserError: If a class cannot be imported, or has no signature.
    """
    return any(
        _takes_total_steps(node)
        for key, node in walk(schedule)
        if isinstance(node, dict) and "_target_" in node and not (key and node.get("_partial_"))
    )


def _takes_total_steps(node: Config) -> bool:
    target = node["_target_"]
    if "total_steps" in node or target in _ENDLESS_SCHEDULES:
        return False
    if target in SECTIONS:
        return True
    try:
        return "total_steps" in inspect.signature(import_target(target)).parameters
    except Exception as error:  # a module of the user's own may raise anything
        raise UserError(f"schedule._target_: {target} can't be inspected: {type(error).__name__}: {error}") from error


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
    if problem := find_callback_problem(value) or _lightning_problem(call, value):
        return f"{where}: {problem}"
    if inspect.isabstract(value) and not call.is_partial:
        return f"{where}: {call.target} has to define {', '.join(sorted(value.__abstractmethods__))}"
    return (
        _needed_module_problem(where, call.target, value)
        or _signature_problem(call, [name for name in call.arguments if not _is_read_by_task(call, name)], value)
        or _interval_problem(call, call.arguments, value)
    )


def _report(call: Call) -> Report:
    """Check a call; imports its target."""
    problem = _problem(call)
    if problem or call.arguments is None:
        return Report(problem)
    value = import_target(call.target)
    try:
        parameters = tuple(constructor_parameters(value))
    except (TypeError, ValueError):  # written in C without a signature
        parameters = None
    return Report(None, None if call.is_inner else find_base(value), parameters)


def _lightning_problem(call: Call, value: Any) -> str | None:
    """Return why a class can't be used by the Trainer of `lightning`; None if it can, or is a function."""
    if not inspect.isclass(value):
        return None
    for base in inspect.getmro(value):
        if base.__module__.partition(".")[0] == _OTHER_LIGHTNING:
            return (
                f"{call.target} derives from {base.__module__}.{base.__name__}; "
                "change the import to lightning.pytorch, which has the same classes"
            )
    for name in call.required_methods:
        if getattr(getattr(value, name, None), "__module__", _LIGHTNING_HOOKS) == _LIGHTNING_HOOKS:
            return (
                f"{call.target} does not define {name}, which it has to without a data module (data=null): "
                "define it, or choose a data module by data=..."
            )
    return None


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
        parameters = constructor_parameters(function)
    except (TypeError, ValueError):
        return None  # written in C without a signature: it checks its arguments itself
    kinds = inspect.Parameter
    kinds_by_name = {name: parameter.kind for name, parameter in parameters.items()}
    positional = [
        n for n, kind in kinds_by_name.items() if kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    names = [n for n, kind in kinds_by_name.items() if kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    taken = positional[: call.num_positional]  # by _args_
    if call.num_positional > len(positional) and kinds.VAR_POSITIONAL not in kinds_by_name.values():
        return f"{call.key}._args_: {call.target} takes at most {len(positional)} arguments by position"
    for name in arguments:
        if name not in names and kinds.VAR_KEYWORD not in kinds_by_name.values():
            unknown = (name for name in arguments if name not in names)
            problem = f"{call.key}.{name}: {call.target} takes no argument {name!r}{did_you_mean(name, names)}"
            is_own = find_base(function) is None  # a subclass of ours has its keys from the config of its base
            return (default_keys_problem(call.key, call.target, unknown) if is_own else None) or problem
        if name in taken:
            return f"{call.key}.{name}: {call.target} gets {name!r} by position already, in _args_"
    group = call.key.partition(".")[0]
    group_or_loss = "task.loss" if lies_under(call.key, "task.loss") else group
    given = {*arguments, *INJECTED[group_or_loss], *taken}
    needed = [] if call.is_partial else [n for n in names if parameters[n].default is kinds.empty and n not in given]
    if not call.is_inner and group in _BY_POSITION and _BY_POSITION[group] not in names:
        needed = [name for name in needed if name != names[0]]
    if not needed:
        return None
    problem = f"{call.key}: {call.target} needs {', '.join(needed)}"
    if inspect.isfunction(function) and lies_under(call.key, "task.loss", "data.transforms"):
        return f"{problem}; a function is called with these by litlab if its node has `_partial_: true`"
    if needed[0] == "task" and call.target.startswith("torchmetrics."):
        return f"{problem}; set {call.key}.task=multiclass"
    return f"{problem}; set {call.key}.{needed[0]}=..."


def _is_read_by_task(call: Call, name: str) -> bool:
    return call.key == "schedule" and name in SCHEDULE_KEYS


def _interval_problem(call: Call, arguments: Sequence[str], function: Callable[..., Any]) -> str | None:
    """Return a problem if a schedule counts its steps, and the config does not say which."""
    if call.key != "schedule":
        return None
    try:
        takes_total_steps = "total_steps" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes_total_steps = False
    follows_metric = any(base.__name__ == "ReduceLROnPlateau" for base in getattr(function, "__mro__", ()))
    if follows_metric and "interval" in arguments:
        return f"schedule.interval: {call.target} is stepped at each validation; leave out schedule.interval"
    if follows_metric or takes_total_steps or "interval" in arguments:
        return None
    return (
        f"schedule: {call.target} counts its steps; set +schedule.interval=epoch to step it after each epoch, or "
        "+schedule.interval=step to step it after each optimizer step"
    )


if __name__ == "__main__":
    from litlab.config.paths import add_project_to_path

    add_project_to_path()
    reports = [_report(Call(**call)) for call in json.load(sys.stdin)]
    print(json.dumps([(report.problem, report.base, report.parameters) for report in reports]))
