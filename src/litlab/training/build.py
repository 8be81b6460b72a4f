"""Instantiation of the classes that a frozen config names."""

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from litlab.config.schema import FACTS, SCHEDULE_KEYS, SECTIONS
from litlab.config.targets import HYDRA_KEYS, constructor_parameters, import_target, needs_total_steps
from litlab.config.tree import format_value, lies_under
from litlab.data.dataset_info import DatasetInfo
from litlab.data.loader import Batch
from litlab.data.module import ImageDataModule, find_network_error
from litlab.errors import UserError
from litlab.optim.schedule_factory import ScheduleFactory
from litlab.runs.directory import RunDirectory
from litlab.runs.processor import multiplies_bfloat16
from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.checkpoint_io import AtomicCheckpointIO
from litlab.training.epoch_loop import EpochLoop, NoProfiler
from litlab.training.rank_environment import RankEnvironment
from litlab.training.stop_reason import record_stops

Config = dict[str, Any]
# Nodes whose classes explain what they refuse.
_CHECK_THEMSELVES = ("task.loss", "task.metrics", "data.transforms", "optimizer", "schedule")
_FIXED_FACTS = set(FACTS) - {"mean", "std"}  # by these two, a network may normalize in its own way
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


# Conversion of an attribute of a foreign data module to the fact that constructors expect.
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "num_classes": operator.index,
    "class_names": lambda names: tuple(map(str, names)),
    "class_counts": lambda counts: tuple(map(operator.index, counts)),
    "image_shape": lambda shape: tuple(map(operator.index, shape)),
    "mean": lambda values: tuple(map(float, values)),
    "std": lambda values: tuple(map(float, values)),
}
_OF_EACH_CLASS = ("class_names", "class_counts")  # facts with an entry for each class


@dataclass(frozen=True)
class Facts:
    """Facts on the data set, `schema.FACTS`, which constructors get by name.

    Attributes:
        source: Description of the data set, or a data module of the user's own that may have attributes of these names.
        given: Facts that the config gives to network or task, for those that the source lacks.
        task: Target of the task, which has the loaders where there is no source.
    """

    source: DatasetInfo | LightningDataModule | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""

    @classmethod
    def collect(cls, config: Config, data: LightningDataModule | None) -> "Facts":
        """Return the facts on a data module under a config."""
        nodes = [node for group in ("model", "task") if (node := config[group])]  # the task is right, if they differ
        given = {name: node[name] for node in nodes for name in FACTS if name in node}
        info = getattr(data, "info", None)
        return cls(info if isinstance(info, DatasetInfo) else data, given, config["task"]["_target_"])

    def get(self, name: str) -> Any:
        """Return a fact; None if it is not known.

        A data module of the user's own is asked only for what a constructor takes, and before its `setup`.

        Raises:
            UserError: If its attribute is not what it should be, cannot be read, or has not an entry for each class.
        """
        if isinstance(self.source, DatasetInfo):
            return getattr(self.source, name)
        value = self._read(name)
        if name in _OF_EACH_CLASS and value is not None:
            num_classes = None
            with suppress(UserError):  # it is reported to those who need it
                num_classes = self._read("num_classes")
            if num_classes not in (None, len(value)):
                where = f"data: {type(self.source).__name__}.{name}" if self.source is not None else name
                raise UserError(f"{where}: has {len(value)} entries, expected one for each of {num_classes} classes")
        return value

    def _read(self, name: str) -> Any:
        """Read a fact from the data module, or from what the config gives."""
        where = f"data: {type(self.source).__name__}.{name}"
        remedy = f"set it in the constructor, or add +model.{name}=..."
        if self.source is None:
            where, remedy = f"{name} of network or task", f"correct it, as in task.{name}=... or model.{name}=..."
        try:
            value = getattr(self.source, name, None)
        except Exception as error:  # a property that needs `setup` may raise anything
            if name in self.given:
                return _CONVERSIONS[name](self.given[name])
            problem = f"reading it before setup() raised {type(error).__name__}: {error}"
            raise UserError(f"{where}: {problem}; {remedy}") from error
        if callable(value):  # a method of that name is something else
            value = None
        if value is None and name == "num_classes" and (names := self._read("class_names")):
            return len(names)
        if value is None and (value := self.given.get(name)) is None:
            return None
        try:
            return _CONVERSIONS[name](value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: found {value!r}, which is no {name} ({error}); {remedy}") from error


@dataclass(frozen=True)
class Experiment:
    """Data, task and network of a run.

    Attributes:
        data: Data module; None for a task with loaders of its own.
        facts: Facts on the data.
        task: Module that is trained.
        dataset_info: Description of the data set; None for a foreign data module.
        network: Network within the task; None for a foreign task without one.
    """

    data: LightningDataModule | None
    facts: Facts
    task: LightningModule
    dataset_info: DatasetInfo | None
    network: nn.Module | None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the data; None for those of a foreign data module or task."""
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
    data = build_data(config) if config["data"] else None
    facts = Facts.collect(config, data)
    info = facts.source if isinstance(facts.source, DatasetInfo) else None
    if _is_image_classifier(config["task"]):
        _check_facts(config, facts)
    seed_everything(config["seed"], verbose=False)
    network = build_network(config["model"], facts) if config["model"] else None
    if isinstance(network, DataDependentInit) and not from_checkpoint:
        _initialize(network, data)
    task = build_task(config, network, facts)
    _check_manual_optimization(config["trainer"], task)
    if isinstance(task, ImageClassifier) and not isinstance(data, ImageDataModule):
        _convert_batches(data, task, _taken_image_shape(config["model"], facts))
    if rank:
        seed_everything((config["seed"] + 7919 * rank) % 2**32, verbose=False)  # or all ranks would drop the same units
    return Experiment(data, facts, task, info, network)


def _check_manual_optimization(trainer: Config, task: LightningModule) -> None:
    """Raise a UserError if the Trainer is to do what it leaves to a module with manual optimization."""
    defaults = {"gradient_clip_val": (None, 0), "accumulate_grad_batches": (1,)}
    for name, values in defaults.items():
        value = trainer.get(name, values[0])
        if not task.automatic_optimization and value not in values:
            raise UserError(
                f"trainer.{name}={value}: {type(task).__name__} has automatic_optimization=False, so Lightning leaves "
                f"this to its training_step; set trainer.{name}={format_value(values[0])}"
            )


def _initialize(network: DataDependentInit, data: LightningDataModule | None) -> None:
    """Initialize a network from training images.

    Raises:
        UserError: If the data module is not one of litlab's, which provide them.
    """
    if not isinstance(data, ImageDataModule):
        raise UserError(
            f"model: {type(network).__name__} initializes itself from training images, which only a subclass of "
            f"ImageDataModule provides before the training, not {type(data).__name__}; use another network"
        )
    num_images = MAX_INIT_VALUES // math.prod(data.info.image_shape)
    network.initialize_from(data.example_images(max(1, min(MAX_INIT_IMAGES, num_images))))


def _check_facts(config: Config, facts: Facts) -> None:
    """Raise a UserError if the config gives task or network other facts on the data than the data module tells."""
    for group in ("task", "model"):
        node = config[group] or {}
        for name in _FIXED_FACTS & node.keys():
            value, known = node[name], facts.get(name)
            if known is not None and (tuple(value) if isinstance(value, list) else value) != known:
                told = f"{known} classes" if name == "num_classes" else f"the {name} {list(known)}"
                raise UserError(
                    f"{group}.{name}={value}: the data have {told}; leave it out, since network and task get it by its "
                    "name"
                )


def _taken_image_shape(node: Config | None, facts: Facts) -> tuple[int, ...] | None:
    """Return the shape of images, c h w, that a network was built for; None if it takes none."""
    if not node or "image_shape" not in {**node, **_open_parameters("model", node)}:
        return None
    shape = node.get("image_shape") or facts.get("image_shape")
    return None if shape is None else tuple(shape)


def _convert_batches(
    data: LightningDataModule | None, task: ImageClassifier, image_shape: tuple[int, ...] | None
) -> None:
    """Let the loaders of a data module of the user's own, or of the task itself, yield pairs of images and labels.

    They become litlab's batches after all of the user's hooks, and before any callback gets them. The shape of the
    first images is compared with the one that the network was built for.
    """
    expected = [image_shape] if image_shape else []  # until the first batch
    hook = "on_after_batch_transfer"
    is_of_task = data is None or (is_overridden(hook, task) and not is_overridden(hook, data))  # Lightning's choice
    owner = task if is_of_task else data
    after_transfer = getattr(owner, hook)

    def on_after_batch_transfer(batch: Any, dataloader_idx: int) -> Batch:
        converted = task.to_batch(after_transfer(batch, dataloader_idx))
        if expected:
            _check_image_shape(tuple(converted.images.shape[1:]), expected.pop(), task, type(owner).__name__)
        return converted

    setattr(owner, hook, on_after_batch_transfer)


def _check_image_shape(
    found: tuple[int, ...],
    expected: tuple[int, ...],
    task: ImageClassifier,
    owner: str,
) -> None:
    """Raise a UserError if the network fails for images of another shape than it was built for."""
    if found != expected and (error := find_network_error(task, found)):
        source = f"the images of {owner} have the shape {'x'.join(map(str, found))}"
        raise UserError(
            f"data: {source}, but image_shape, for which {type(task.network).__name__} was built, is "
            f"{'x'.join(map(str, expected))} ({str(error).splitlines()[0]}): correct image_shape or the images"
        ) from error


def find_missing_methods(experiment: Experiment) -> dict[str, list[str]]:
    """List the methods for `validation` and for `test` that a foreign module or data module does not define."""
    task, data = experiment.task, experiment.data
    loaders = task if data is None else data
    methods = {
        "validation": [(task, "validation_step"), (loaders, "val_dataloader")],
        "test": [(task, "test_step"), (loaders, "test_dataloader")],
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


def build_network(node: Config, facts: Facts) -> nn.Module:
    """Build the network, with those facts on the data set that its signature names."""
    network = instantiate("model", node, facts)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_: {node['_target_']} gave a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def build_transforms(setting: str, nodes: list[Config]) -> list[Any]:
    """Build the transforms of a list of nodes with this key, as an argument of a data module."""
    transforms: list[Any] = _instantiate_inner(setting, nodes, None, {})
    return transforms


def build_task(config: Config, network: nn.Module | None, facts: Facts) -> LightningModule:
    """Build the LightningModule, with network, optimizer and schedule where its signature names them."""
    offered: dict[str, Any] = {"schedule": None}
    if network is not None:
        offered["network"] = network
    if config["optimizer"]:
        offered["optimizer"] = NodeFactory("optimizer", config["optimizer"], "params")
    if config["schedule"]:
        offered["schedule"] = build_schedule(config)
    node = dict(config["task"])
    if node.get("loss") and _is_image_classifier(node):
        offered["loss"] = build_loss(node.pop("loss"), facts)
    task = instantiate("task", node, facts, **offered)
    if not isinstance(task, LightningModule):
        raise UserError(f"task._target_: {config['task']['_target_']} is not a LightningModule")
    return task


def build_loss(node: Config, facts: Facts) -> Callable[..., Tensor]:
    """Build the loss of an `ImageClassifier`, with `reduction="none"` and facts of the data set where it takes them.

    It is a module, or a function with `_partial_: true`.
    """
    if not node.get("_partial_"):
        loss: Callable[..., Tensor] = instantiate("task.loss", node, facts, reduction="none")
        return loss
    function = bind_arguments("task.loss", node, facts, reduction="none")
    return partial(function, **_open_arguments("task.loss", node, facts, {"reduction": "none"}))


def build_schedule(config: Config) -> ScheduleFactory:
    """Build the factory of the schedule."""
    arguments = {key: value for key, value in config["schedule"].items() if key not in SCHEDULE_KEYS}
    factory = NodeFactory("schedule", arguments, "optimizer")
    is_plateau = inspect.isclass(factory.func) and issubclass(factory.func, ReduceLROnPlateau)
    return ScheduleFactory(
        factory,
        interval=config["schedule"].get("interval"),
        needs_total_steps=needs_total_steps(arguments),
        takes_mode=is_plateau and "mode" not in arguments,
        objective=config.get("objective"),  # a finished run is used without it
    )


def build_callbacks(config: Config, facts: Facts) -> list[Callback]:
    """Build the callbacks in their order, without those of litlab that need facts on the data set that are not known.

    Raises:
        UserError: If one of the user's own needs such a fact, or a class refuses its arguments.
    """
    nodes = {f"callbacks.{name}": node for name, node in (config["callbacks"] or {}).items() if node}
    return [
        instantiate(path, node, facts)
        for path, node in nodes.items()
        if node["_target_"] not in SECTIONS or not _lacking_facts(path, node, facts)
    ]


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
    if node.get("precision") == "auto":
        node["precision"] = _choose_precision(node["accelerator"])
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
    record_stops(trainer)
    # Lightning's handlers end a run with exit code 0 and nothing saved, and ask all ranks about it at every step.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def _choose_precision(accelerator: str) -> str:
    """Return `bf16-mixed` for a device that multiplies in bfloat16, and `32-true` for others."""
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
        has_bfloat16 = is_cpu and multiplies_bfloat16()
    return "bf16-mixed" if has_bfloat16 else "32-true"


@dataclass(frozen=True)
class NodeFactory:
    """Function that instantiates a node, with the nodes inside it, from a value that is known only later.

    Attributes:
        path: Key of the node in the config, for messages.
        node: `_target_` and arguments.
        name: Name under which the value is offered to the node, and to those inside it. A class without a parameter of
            that name takes the value as its first argument.
    """

    path: str
    node: Config
    name: str

    @property
    def func(self) -> Any:
        """Class or function of the node, as of a `functools.partial`."""
        return _import(self.path, self.node)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Instantiate the node.

        Args:
            args: The value, if it is not given by name.
            arguments: More arguments, which replace those of the node; `total_steps` is for the nodes inside it, too.
        """
        if args:
            (arguments[self.name],) = args
        offered = {name: arguments.pop(name) for name in (self.name, "total_steps") if name in arguments}
        node, parameters = self.node | arguments, inspect.signature(self.func).parameters
        if self.name not in parameters and next(iter(parameters), None) not in node:
            node["_args_"] = [offered[self.name], *node.get("_args_", [])]
        return instantiate(self.path, node, **offered)


def instantiate(path: str, node: Config, facts: Facts | None = None, **offered: Any) -> Any:
    """Call the class that a node names.

    Args:
        path: Key of the node in the config, for messages.
        node: `_target_` and arguments.
        facts: Facts on the data set; those that the signature names and the node does not are passed on, also to the
            nodes inside it.
        offered: Other such arguments.

    Raises:
        UserError: If the class cannot be imported, refuses its arguments, or lacks a package that it imports itself.
    """
    if facts is not None and (lacking := _lacking_facts(path, node, facts)):
        added = " ".join(f"+{path}.{name}=..." for name in lacking)
        needs = f"{path}: {node['_target_']} needs {', '.join(lacking)}"
        if facts.source is None:
            raise UserError(f"{needs}, which is not known of the data of {facts.task} (data=null): add {added}")
        raise UserError(
            f"{needs}, which {type(facts.source).__name__} does not tell: let its constructor set attributes of these "
            f"names, or add {added}"
        )
    target = bind_arguments(path, node, facts, **offered)
    arguments = _open_arguments(path, node, facts, offered)
    try:
        return target(**arguments)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: {node['_target_']} needs a package that is not installed here: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        is_of_call = error.__traceback__ is not None and error.__traceback__.tb_next is None  # not raised within it
        if is_of_call or lies_under(path, *_CHECK_THEMSELVES):
            raise UserError(f"{path}: {node['_target_']}: {error}") from error
        if "num_classes" in arguments and node["_target_"].startswith("torchvision.models."):  # it has `weights`
            raise UserError(
                f"{path}: {node['_target_']}: {error} A network with pretrained weights gets a new head by "
                "model=torchvision model.name=... model.pretrained=true"
            ) from error
        _note_node(error, path, node)
        raise
    except Exception as error:
        _note_node(error, path, node)
        raise


def _note_node(error: Exception, path: str, node: Config) -> None:
    """Add to an error of a constructor the node that it was built from, unless it has the one inside it."""
    if not isinstance(error, UserError) and not getattr(error, "__notes__", None):
        settings = "".join(f" {path}.{name}={format_value(value)}" for name, value in node.items() if name[0] != "_")
        error.add_note(f"(raised by {path}: {node['_target_']}{settings})")


def _open_parameters(path: str, node: Config) -> dict[str, inspect.Parameter]:
    """Return the parameters of the class that a node names, without those that the node itself sets."""
    try:
        parameters = constructor_parameters(_import(path, node))
    except (TypeError, ValueError):  # written in C without a signature
        return {}
    by_position = list(parameters)[: len(node.get("_args_", []))]
    return {name: value for name, value in parameters.items() if name not in node and name not in by_position}


def _open_arguments(path: str, node: Config, facts: Facts | None, offered: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments and facts that the signature of a class names and its node does not set."""
    names = _open_parameters(path, node)
    arguments = {name: value for name, value in offered.items() if name in names}
    if facts is not None:
        arguments |= {name: fact for name in FACTS if name in names and (fact := facts.get(name)) is not None}
    return arguments


def _lacking_facts(path: str, node: Config, facts: Facts) -> list[str]:
    """Return the names of the facts that a class needs and that are not known."""
    parameters = _open_parameters(path, node)
    needed = [name for name in FACTS if name in parameters and parameters[name].default is inspect.Parameter.empty]
    return [name for name in needed if facts.get(name) is None]


def _import(path: str, node: Config) -> Any:
    try:
        return import_target(node["_target_"])
    except UserError as error:
        raise UserError(f"{path}._target_: {error}") from error


def bind_arguments(path: str, node: Config, facts: Facts | None = None, **offered: Any) -> "partial[Any]":
    """Bind the arguments of a node to the class that it names; inner nodes that name a class are instantiated.

    Hydra's keys mean what they mean to Hydra: `_args_` by position, `_partial_` for an inner node that is not to be
    called, `_recursive_: false` for inner nodes to be left alone. Everything is plain, so `_convert_` changes nothing.

    Args:
        path: Key of the node in the config, for messages.
        node: `_target_` and arguments.
        facts: Facts for the inner nodes, as in `instantiate`.
        offered: Other arguments for the inner nodes.

    Raises:
        UserError: If a class cannot be imported or refuses its arguments.
    """
    target = _import(path, node)
    args, kwargs = node.get("_args_", []), {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    if node.get("_recursive_", True):
        args = _instantiate_inner(f"{path}._args_", args, facts, offered)
        kwargs = {key: _instantiate_inner(f"{path}.{key}", value, facts, offered) for key, value in kwargs.items()}
    if facts is not None:  # as a data set's own are tuples
        kwargs |= {key: tuple(kwargs[key]) for key in FACTS if isinstance(kwargs.get(key), list)}
    return partial(target, *args, **kwargs)


def _instantiate_inner(path: str, value: Any, facts: Facts | None, offered: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_instantiate_inner(f"{path}.{position}", item, facts, offered) for position, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: _instantiate_inner(f"{path}.{key}", item, facts, offered) for key, item in value.items()}
    build = bind_arguments if value.get("_partial_") else instantiate
    return build(path, value, facts, **offered)


def _is_image_classifier(node: Config) -> bool:
    """Return whether a node names litlab's task or a subclass of it, which takes the mean of the losses itself."""
    try:
        target = import_target(node["_target_"])
    except UserError:
        return False  # reported where it is built
    return inspect.isclass(target) and issubclass(target, ImageClassifier)
