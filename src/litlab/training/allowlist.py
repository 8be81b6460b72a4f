"""What a run of somebody else's may be made of: classes of a known kind, from where only such classes are defined.

Neither is enough alone. `torch.utils.collect_env.run` is in torch and a shell; `torchmetrics.multimodal.CLIPScore` is a
Module and downloads Python code to run. docs/SECURITY.md lists what was looked at.
"""

from collections.abc import Collection
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.callbacks.spike import SpikeDetection
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch import fx, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from litlab.config.freeze import from_yaml
from litlab.config.schema import SECTIONS
from litlab.config.targets import find
from litlab.config.trust import Config, Trust, hint, targets, within
from litlab.config.validate import validate
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory


@dataclass(frozen=True)
class Kind:
    """A class that is a `base` and defined in one of `homes` builds nothing but itself from plain arguments."""

    base: type
    homes: tuple[str, ...]


_METRICS = (
    "aggregation", "classification", "clustering", "collections", "nominal", "regression", "retrieval", "segmentation",
    "wrappers",
)  # fmt: skip  # audio, image, multimodal, text and video fetch files, and some of them run what they fetch
_NETWORK = Kind(
    nn.Module,
    (
        "litlab.models", "torch.nn", "torchvision.models", "torchvision.ops", "torchvision.transforms",
        *(f"torchmetrics.{package}" for package in _METRICS),
    ),
)  # fmt: skip
_BORING = "lightning.pytorch.demos.boring_classes"
_OPTIMIZER = Kind(Optimizer, ("litlab.optim.muon", "torch.optim"))
_SCHEDULE = Kind(LRScheduler, ("torch.optim",))
_PLACES = {
    "data": Kind(LightningDataModule, ("litlab.data", _BORING)),
    "model": _NETWORK,
    "task": Kind(LightningModule, ("litlab.tasks.image_classifier", _BORING)),
    "optimizer": _OPTIMIZER,
    "schedule": _SCHEDULE,
    "callbacks": Kind(Callback, ("litlab.callbacks", "lightning.pytorch.callbacks")),
    "logger": Kind(  # the others talk to servers
        Logger, ("litlab.loggers", "lightning.pytorch.loggers.csv_logs", "lightning.pytorch.loggers.tensorboard")
    ),
    "trainer": Kind(Trainer, ("lightning.pytorch.trainer.trainer",)),
}
_STRATEGY = Kind(
    Strategy,
    tuple(f"lightning.pytorch.strategies.{name}" for name in ("ddp", "fsdp", "model_parallel", "single_device")),
)
# Modules made of code; callbacks that delete or write whatever files the checkpoint they are resumed from names.
_NEVER = (fx.GraphModule, Checkpoint, SpikeDetection)
_NESTED = (_NETWORK, _OPTIMIZER, _SCHEDULE)
_FUNCTIONS = {"schedule": "litlab.optim.schedules", "model": "litlab.models.torchvision"}  # of litlab, by their place


def trusted(run: RunDirectory, frozen: Config) -> Config:
    """The config that objects may be built from: `frozen`, as it was read from config.yaml, once it has been judged.

    For a worker: what it may allow stands in the environment's LITLAB_ALLOW.

    Raises:
        UserError: if the run is not known as the user's own, and names what such a run may not.
    """
    content = run.config.read_bytes()
    trust = Trust.of(run, content)
    if repr(from_yaml(content.decode())) != repr(frozen):  # not ==, since NaN is not equal to itself
        raise UserError(f"{run.config} was changed while the run was started; start it again")
    if trust.own:
        return frozen
    validate(frozen)
    trust.check_names(frozen)
    check_objects(trust, frozen)
    return trust.settled(frozen)


def check_objects(trust: Trust, config: Config) -> None:
    """Import what a config of others names, and judge what it is, before any of it is called.

    The names have been judged before (`Trust.check_names`): importing runs a module.

    Raises:
        UserError: with a line for each that is not a class of a kind that belongs there.
    """
    if trust.own:
        return
    trust.check_names(config)
    problems = []
    for path, node in targets(config):
        target = node["_target_"]
        try:
            found = find(target)
        except UserError as error:
            problems.append(f"{path}._target_: {error}")
            continue
        if objection := _objection(path, target, found, trust.allowed):
            problems.append(f"{path}._target_: {target} {objection}")
    trust.refuse(problems)


def _objection(path: str, target: str, found: Any, allowed: Collection[str]) -> str | None:
    place = path.partition(".")[0]
    home = getattr(found, "__module__", None)
    if not isinstance(found, type | FunctionType) or not isinstance(home, str):
        return f"is a {type(found).__name__}, not a class"
    if within(home, allowed):
        return None
    if isinstance(found, FunctionType):
        if target in SECTIONS and home == _FUNCTIONS.get(place):
            return None
        return f"is a function of {home}, which may do anything; {hint(f'{home}.{found.__name__}')}"
    kinds = _kinds_at(path)
    if any(_is_a(found, kind) for kind in kinds):
        return None
    expected = " or ".join(kind.base.__name__ for kind in kinds)
    if not any(issubclass(found, kind.base) for kind in kinds):
        return f"is {home}.{found.__qualname__}, which is no {expected}"
    return f"is a {expected} of {home}, where not all are harmless; {hint(f'{home}.{found.__name__}')}"


def _kinds_at(path: str) -> tuple[Kind, ...]:
    place, *rest = path.split(".")
    if path == "trainer.strategy":
        return (_STRATEGY,)
    if len(rest) == (1 if place in ("callbacks", "logger") else 0) and place in _PLACES:
        return (_PLACES[place],)
    return _NESTED


def _is_a(found: type, kind: Kind) -> bool:
    return issubclass(found, kind.base) and within(found.__module__, kind.homes) and not issubclass(found, _NEVER)
