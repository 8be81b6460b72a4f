"""From a frozen config to the objects of a run: the one place that instantiates."""

import inspect
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from torch import Tensor, nn

from litlab.config.targets import FACTS, find
from litlab.data.dataset_facts import DatasetFacts
from litlab.data.module import ImageDataModule
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.training.checkpoint_io import AtomicCheckpointIO
from litlab.training.loop import EpochLoop, Unprofiled

Config = dict[str, Any]
_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
NUM_EXAMPLES = 5000  # training images that a network is shown before training, as in Jordan 2024 (arXiv:2404.00498)
MAX_EXAMPLE_VALUES = 2**24  # in all of them: more than 5,000 have at 3x32x32, fewer images where those are larger
_HYDRAS_KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


@runtime_checkable
class DataDependentInit(Protocol):
    """A network that sets itself up from images, float `b c h w`, finished but not augmented, before it is trained."""

    def initialize_from(self, images: Tensor) -> None: ...


@dataclass(frozen=True)
class Experiment:
    """What Lightning's Trainer is given. `facts` and `network` are None where foreign classes do without them."""

    data: LightningDataModule
    task: LightningModule
    facts: DatasetFacts | None
    network: nn.Module | None


def assemble(config: Config, *, rank: int, from_checkpoint: bool = False) -> Experiment:
    """Data, network and task of a frozen config, seeded: equal weights in all ranks, other random numbers then.

    from_checkpoint: whether the weights are replaced by a checkpoint's anyway, so that no network has to see images.

    Raises:
        UserError: if the data can't be had, or a class does not take what the config gives it.
    """
    data = build_data(config)
    facts = facts_of(data)
    seed_everything(config["seed"], verbose=False)
    network = build_network(config["model"], facts) if config["model"] else None
    if isinstance(network, DataDependentInit) and isinstance(data, ImageDataModule) and not from_checkpoint:
        num_values = math.prod(data.facts.image_shape)
        network.initialize_from(data.example_images(max(1, min(NUM_EXAMPLES, MAX_EXAMPLE_VALUES // num_values))))
    task = build_task(config, network, facts)
    if rank:
        seed_everything((config["seed"] + 7919 * rank) % 2**32, verbose=False)  # or all ranks would drop the same units
    return Experiment(data, task, facts, network)


def build_data(config: Config) -> LightningDataModule:
    """The data module; one of ours is prepared and set up, since the network needs its facts."""
    data = build("data", config["data"])
    if not isinstance(data, LightningDataModule):
        raise UserError(f"data._target_: {config['data']['_target_']} is no LightningDataModule")
    if isinstance(data, ImageDataModule):
        data.prepare_data()
        data.setup("fit")
    return data


def facts_of(data: LightningDataModule) -> DatasetFacts | None:
    """The facts of a data module that has them."""
    facts = getattr(data, "facts", None)
    return facts if isinstance(facts, DatasetFacts) else None


def build_network(node: Config, facts: DatasetFacts | None) -> nn.Module:
    """The network, with those facts of the data that its constructor names."""
    network = build("model", node, **_of(facts))
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_: {node['_target_']} gave a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def build_task(config: Config, network: nn.Module | None, facts: DatasetFacts | None) -> LightningModule:
    """The LightningModule, with network, optimizer and schedule where its constructor names them."""
    offered = _of(facts)
    if network is not None:
        offered["network"] = network
    if config["optimizer"]:
        offered["optimizer"] = factory("optimizer", config["optimizer"])
    offered["schedule"] = factory("schedule", config["schedule"]) if config["schedule"] else None
    task = build("task", config["task"], **offered)
    if not isinstance(task, LightningModule):
        raise UserError(f"task._target_: {config['task']['_target_']} is no LightningModule")
    return task


def build_callbacks(config: Config, facts: DatasetFacts | None) -> list[Callback]:
    """The callbacks of the config, in its order; without those that need facts, where the data module has none."""
    nodes = {name: node for name, node in (config["callbacks"] or {}).items() if node}
    if facts is None:
        nodes = {name: node for name, node in nodes.items() if not _needs_facts(f"callbacks.{name}", node)}
    return [build(f"callbacks.{name}", node, **_of(facts)) for name, node in nodes.items()]


def _needs_facts(path: str, node: Config) -> bool:
    parameters = inspect.signature(factory(path, node)).parameters
    return any(name in parameters and parameters[name].default is inspect.Parameter.empty for name in FACTS)


def build_loggers(config: Config, run: RunDirectory) -> list[Logger]:
    """The loggers of the config, writing into the run directory where they have a `save_dir`."""
    nodes = {name: node for name, node in (config["logger"] or {}).items() if node}
    return [build(f"logger.{name}", node, save_dir=str(run.path)) for name, node in nodes.items()]


def build_trainer(
    config: Config,
    run: RunDirectory,
    facts: DatasetFacts | None,
    *,
    devices: int | list[int],
    callbacks: list[Callback],
    loggers: list[Logger],
) -> Trainer:
    """Lightning's Trainer, quiet: the console, the checkpoints and the loggers are litlab's."""
    node = dict(config["trainer"]) | {"devices": devices}
    if facts is not None and facts.num_val == 0:
        node["limit_val_batches"] = 0  # Lightning warns of an empty loader
    profiler = node.pop("profiler", None)
    trainer = factory("trainer", node)(
        profiler=_PROFILERS[profiler](dirpath=run.path, filename="profile") if profiler else Unprofiled(),
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
        enable_progress_bar=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),  # a user's own
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    assert isinstance(trainer, Trainer)
    EpochLoop.put_into(trainer)
    _leave_signals_alone(trainer)
    return trainer


def _leave_signals_alone(trainer: Trainer) -> None:
    """Lightning's handlers end a run with exit code 0 and nothing saved, and ask all ranks about it at every step."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def build(path: str, node: Config, **offered: Any) -> Any:
    """Build the class that a node names, with its arguments and with what is offered **and** stands in its signature.

    Raises:
        UserError: if it can't be imported or refuses its arguments.
    """
    make = factory(path, node)
    named = inspect.signature(make).parameters
    taken = {name: value for name, value in offered.items() if name in named and name not in node}
    try:
        return make(**taken)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # raised by the call, not within it
            raise UserError(f"{path}: {node['_target_']}: {error}") from error
        raise


def factory(path: str, node: Config) -> "partial[Any]":
    """The class that a node names, with its arguments bound; nodes inside it that name a class are built.

    Hydra's keys are known: `_args_` by position, `_partial_` for an inner node that is not to be called,
    `_recursive_: false` for arguments to be left as they are. Everything is plain, so `_convert_` changes nothing.
    """
    try:
        target = find(node["_target_"])
    except UserError as error:
        raise UserError(f"{path}._target_: {error}") from error
    inner = _inner if node.get("_recursive_", True) else _unchanged
    arguments = {key: inner(f"{path}.{key}", value) for key, value in node.items() if key not in _HYDRAS_KEYS}
    return partial(target, *inner(f"{path}._args_", node.get("_args_", [])), **arguments)


def _inner(path: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_inner(f"{path}.{position}", item) for position, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: _inner(f"{path}.{key}", item) for key, item in value.items()}
    return factory(path, value) if value.get("_partial_") else build(path, value)


def _unchanged(path: str, value: Any) -> Any:
    return value


def _of(facts: DatasetFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    return {name: getattr(facts, name) for name in FACTS}
