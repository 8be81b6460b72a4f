"""Instantiation of the classes that a frozen config names."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from litlab.config.targets import FACTS, HYDRA_KEYS, import_target
from litlab.config.tree import lies_under
from litlab.data.dataset_info import DatasetInfo
from litlab.data.module import ImageDataModule
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.checkpoint_io import AtomicCheckpointIO
from litlab.training.epoch_loop import EpochLoop, NoProfiler
from litlab.training.rank_environment import RankEnvironment

Config = dict[str, Any]
_CHECK_THEMSELVES = ("task.loss", "task.metrics", "data.transforms")  # nodes whose classes explain what they refuse
MAX_INIT_IMAGES = 5000  # training images for data-dependent initialization, as in Jordan 2024 (arXiv:2404.00498)
MAX_INIT_VALUES = 2**24  # in all of them: more than 5,000 images have at 3x32x32; larger ones are fewer
_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


@runtime_checkable
class DataDependentInit(Protocol):
    """Network that initializes itself from training images, float `b c h w`, normalized but not augmented."""

    def initialize_from(self, images: Tensor) -> None:
        """Set weights that depend on the images."""


@dataclass(frozen=True)
class Experiment:
    """Data, task and network of a run.

    Attributes:
        data: Data module.
        task: Module that is trained.
        dataset_info: Description of the data set; None for a foreign data module.
        network: Network within the task; None for a foreign task without one.
    """

    data: LightningDataModule
    task: LightningModule
    dataset_info: DatasetInfo | None
    network: nn.Module | None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the data; None for a foreign data module."""
        return self.dataset_info.fingerprint if self.dataset_info else None


def assemble(config: Config, *, rank: int, from_checkpoint: bool = False) -> Experiment:
    """Build data, network and task, seeded: with equal weights on all ranks, and other random numbers after that.

    Args:
        config: Frozen config with its secrets.
        rank: Global rank of this process.
        from_checkpoint: Whether a checkpoint replaces the weights, so that no network is initialized from images.

    Raises:
        UserError: If the data are not available, or a class refuses the arguments in the config.
    """
    data = build_data(config)
    info = getattr(data, "info", None)
    info = info if isinstance(info, DatasetInfo) else None
    seed_everything(config["seed"], verbose=False)
    network = build_network(config["model"], info) if config["model"] else None
    if isinstance(network, DataDependentInit) and isinstance(data, ImageDataModule) and not from_checkpoint:
        num_images = MAX_INIT_VALUES // math.prod(data.info.image_shape)
        network.initialize_from(data.example_images(max(1, min(MAX_INIT_IMAGES, num_images))))
    task = build_task(config, network, info)
    if rank:
        seed_everything((config["seed"] + 7919 * rank) % 2**32, verbose=False)  # or all ranks would drop the same units
    return Experiment(data, task, info, network)


def find_missing_methods(experiment: Experiment) -> dict[str, list[str]]:
    """List the methods for `validation` and for `test` that a foreign module or data module does not define."""
    task, data = experiment.task, experiment.data
    methods = {
        "validation": [(task, "validation_step"), (data, "val_dataloader")],
        "test": [(task, "test_step"), (data, "test_dataloader")],
    }
    return {
        split: [f"{type(owner).__name__}.{name}" for owner, name in pairs if not is_overridden(name, owner)]
        for split, pairs in methods.items()
    }


def build_data(config: Config) -> LightningDataModule:
    """Build the data module; set up one of litlab's, since the network needs its description."""
    data = instantiate("data", config["data"])
    if not isinstance(data, LightningDataModule):
        raise UserError(f"data._target_: {config['data']['_target_']} is not a LightningDataModule")
    if isinstance(data, ImageDataModule):
        data.prepare_data()
        data.setup("fit")
    return data


def build_network(node: Config, info: DatasetInfo | None) -> nn.Module:
    """Build the network, with those properties of the data set that its signature names."""
    network = instantiate("model", node, **_as_arguments(info))
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_: {node['_target_']} gave a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def build_transforms(setting: str, nodes: list[Config]) -> list[Any]:
    """Build the transforms of a list of nodes with this key, as an argument of a data module."""
    transforms: list[Any] = _instantiate_inner(setting, nodes, {})
    return transforms


def build_task(config: Config, network: nn.Module | None, info: DatasetInfo | None) -> LightningModule:
    """Build the LightningModule, with network, optimizer and schedule where its signature names them."""
    offered = _as_arguments(info) | {"schedule": None}
    if network is not None:
        offered["network"] = network
    for key in ("optimizer", "schedule"):
        if config[key]:
            offered[key] = bind_arguments(key, config[key])
    node = dict(config["task"])
    if node.get("loss") and _is_image_classifier(node):
        offered["loss"] = build_loss(node.pop("loss"), info)
    task = instantiate("task", node, **offered)
    if not isinstance(task, LightningModule):
        raise UserError(f"task._target_: {config['task']['_target_']} is not a LightningModule")
    return task


def build_loss(node: Config, info: DatasetInfo | None) -> Callable[..., Tensor]:
    """Build the loss of an `ImageClassifier`, with `reduction="none"` and facts of the data set where it takes them.

    It is a module, or a function with `_partial_: true`.
    """
    offered = _as_arguments(info) | {"reduction": "none"}
    if not node.get("_partial_"):
        loss: Callable[..., Tensor] = instantiate("task.loss", node, **offered)
        return loss
    function = bind_arguments("task.loss", node, **offered)
    parameters = inspect.signature(function).parameters
    return partial(function, **{name: value for name, value in offered.items() if name in parameters})


def build_callbacks(config: Config, info: DatasetInfo | None) -> list[Callback]:
    """Build the callbacks in their order, without those that need dataset info where there is none."""
    callbacks = []
    for name, node in (config["callbacks"] or {}).items():
        if not node:
            continue
        path = f"callbacks.{name}"
        if info is None:
            parameters = inspect.signature(bind_arguments(path, node)).parameters
            if any(fact in parameters and parameters[fact].default is inspect.Parameter.empty for fact in FACTS):
                continue
        callbacks.append(instantiate(path, node, **_as_arguments(info)))
    return callbacks


def build_loggers(config: Config, run: RunDirectory) -> list[Logger]:
    """Build the loggers, which write into the run directory where they have a `save_dir`."""
    nodes = {name: node for name, node in (config["logger"] or {}).items() if node}
    return [instantiate(f"logger.{name}", node, save_dir=str(run.path)) for name, node in nodes.items()]


def build_trainer(
    config: Config,
    run: RunDirectory,
    info: DatasetInfo | None,
    *,
    devices: int | list[int],
    callbacks: list[Callback],
    loggers: list[Logger],
) -> Trainer:
    """Build Lightning's Trainer, without its console output, checkpoints and signal handlers: litlab has its own.

    Args:
        config: Config of which `trainer` is used.
        run: Run directory.
        info: Description of the data set; None for foreign data.
        devices: Number of devices on this machine, or their numbers.
        callbacks: All callbacks.
        loggers: All loggers.

    Raises:
        UserError: If the Trainer refuses its arguments, or this machine has not the devices.
    """
    node = dict(config["trainer"]) | {"devices": devices}
    if info is not None and info.num_val == 0:
        node["limit_val_batches"] = 0  # Lightning warns of an empty loader
    if node.get("max_steps", -1) is None:
        del node["max_steps"]  # -1 to Lightning
    profiler = node.pop("profiler", None)
    bound = bind_arguments("trainer", node)
    try:
        trainer = bound(
            profiler=_PROFILERS[profiler](dirpath=run.path, filename="profile") if profiler else NoProfiler(),
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpointIO(), RankEnvironment()],
            default_root_dir=run.path,
            enable_progress_bar=False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),  # a user's own
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:  # no GPU, an unknown strategy, no DeepSpeed
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    assert isinstance(trainer, Trainer)
    EpochLoop.install(trainer)
    # Lightning's handlers end a run with exit code 0 and nothing saved, and ask all ranks about it at every step.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def instantiate(path: str, node: Config, **offered: Any) -> Any:
    """Call the class that a node names.

    Args:
        path: Key of the node in the config, for messages.
        node: `_target_` and arguments.
        offered: Arguments that are passed on if the signature names them and the node does not; also to the nodes
            inside it.

    Raises:
        UserError: If the class cannot be imported, refuses its arguments, or lacks a package that it imports itself.
    """
    target = bind_arguments(path, node, **offered)
    parameters = inspect.signature(target).parameters
    arguments = {name: value for name, value in offered.items() if name in parameters and name not in node}
    try:
        return target(**arguments)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: {node['_target_']} needs a package that is not installed here: {error}") from error
    except (TypeError, ValueError) as error:
        is_of_call = error.__traceback__ is not None and error.__traceback__.tb_next is None  # not raised within it
        if is_of_call or lies_under(path, *_CHECK_THEMSELVES):
            raise UserError(f"{path}: {node['_target_']}: {error}") from error
        raise


def bind_arguments(path: str, node: Config, **offered: Any) -> "partial[Any]":
    """Bind the arguments of a node to the class that it names; inner nodes that name a class are instantiated.

    Hydra's keys mean what they mean to Hydra: `_args_` by position, `_partial_` for an inner node that is not to be
    called, `_recursive_: false` for inner nodes to be left alone. Everything is plain, so `_convert_` changes nothing.

    Args:
        path: Key of the node in the config, for messages.
        node: `_target_` and arguments.
        offered: Arguments for the inner nodes, as in `instantiate`.

    Raises:
        UserError: If a class cannot be imported or refuses its arguments.
    """
    try:
        target = import_target(node["_target_"])
    except UserError as error:
        raise UserError(f"{path}._target_: {error}") from error
    args, kwargs = node.get("_args_", []), {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    if node.get("_recursive_", True):
        args = _instantiate_inner(f"{path}._args_", args, offered)
        kwargs = {key: _instantiate_inner(f"{path}.{key}", value, offered) for key, value in kwargs.items()}
    return partial(target, *args, **kwargs)


def _instantiate_inner(path: str, value: Any, offered: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_instantiate_inner(f"{path}.{position}", item, offered) for position, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: _instantiate_inner(f"{path}.{key}", item, offered) for key, item in value.items()}
    return bind_arguments(path, value, **offered) if value.get("_partial_") else instantiate(path, value, **offered)


def _is_image_classifier(node: Config) -> bool:
    """Return whether a node names litlab's task or a subclass of it, which takes the mean of the losses itself."""
    try:
        target = import_target(node["_target_"])
    except UserError:
        return False  # reported where it is built
    return inspect.isclass(target) and issubclass(target, ImageClassifier)


def _as_arguments(info: DatasetInfo | None) -> dict[str, Any]:
    return {name: getattr(info, name) for name in FACTS} if info is not None else {}
