"""Plain attributes that change in training although no checkpoint holds them, so that a resumed run would differ."""

import pickle
import random
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

MAX_ATTRIBUTES = 1000  # that are compared: about a millisecond
MAX_ITEMS = 16  # of a container that are compared; of a longer one, those at its ends
MAX_DEPTH = 2  # of objects within objects
_LIBRARIES = {"torch", "torchvision", "torchmetrics", "lightning", "litlab", "numpy", *sys.stdlib_module_names}
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
_COMPARED = {*_PLAIN, *_CONTAINERS, *_GENERATORS, np.ndarray, torch.Generator}
_NO_OBJECTS = (type, nn.Module, FunctionType, MethodType)
_SET_BY_LIBRARIES = {
    "task": {*vars(LightningModule()), "latest", "_counted"},  # those of ImageClassifier: a resume makes no difference
    "data": {*vars(LightningDataModule())},
    "train_dataloader": {*vars(DataLoader(TensorDataset()))},  # its generator is saved
}


class UnsavedState:
    """Compare the plain attributes of task, data module and training loaders at several moments of a training.

    Only values of built-in types, tensors, arrays and random generators are compared, those of the user's own objects
    within the attributes among them. None of the user's code is called. An object that saves a state of its own is
    trusted to save all of it: a module with `get_extra_state`, a task with `on_save_checkpoint`, a data module or
    loader with `state_dict`.

    Attributes:
        changed: Names of the attributes that have changed, as far as known.
    """

    def __init__(self) -> None:
        self.changed: list[str] = []
        self._num_steps = 0
        self._before: dict[str, Any] = {}  # marks of values that a resumed run would start with

    def start_step(self, trainer: Trainer, task: LightningModule) -> None:
        """Look at what is there before the first step; at tensors, and what is new, before the second one."""
        if self._num_steps == 2:
            return
        marks = {name: mark for name, mark in _collect(trainer, task).items() if mark is not None}
        if self._num_steps == 0:
            marks = {name: mark for name, mark in marks.items() if not isinstance(mark, _TensorMark)}
        self._before = marks | self._before
        self._num_steps += 1

    def update(self, trainer: Trainer, task: LightningModule) -> None:
        """Compare the attributes with what they were at first."""
        self.changed = []
        for name, mark in _collect(trainer, task).items() if self._num_steps == 2 else ():
            before = self._before.get(name) if mark is None else self._before.setdefault(name, mark)
            if before is not None and before != mark:
                self.changed.append(name)


def _collect(trainer: Trainer, task: LightningModule) -> dict[str, Any]:
    """Return a mark of each attribute by name; it is equal as long as the value does not change, and None for None."""
    return dict(islice(_attributes(trainer, task), MAX_ATTRIBUTES))


def _attributes(trainer: Trainer, task: LightningModule) -> Iterator[tuple[str, Any]]:
    visited: set[int] = set()
    data: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # Lightning gives it no type
    if not _overrides(task, LightningModule, "on_save_checkpoint", "state_dict"):
        for name, module in task.named_modules():
            if _is_of_library(module) or isinstance(module, Metric):
                continue
            if not _overrides(module, nn.Module, "get_extra_state", "state_dict", "_save_to_state_dict"):
                yield from _attributes_of("task", name, module, visited)
    if data is not None and _overrides(data, LightningDataModule, "state_dict"):
        return
    if data is not None and not _is_of_library(data):
        yield from _attributes_of("data", "", data, visited)
    combined = trainer.fit_loop._combined_loader
    for loader in combined.flattened if combined is not None else ():
        if hasattr(type(loader), "state_dict"):
            continue
        if _is_object(loader):
            yield from _attributes_of("train_dataloader", "", loader, visited)
        for part in ("sampler", "batch_sampler", "dataset"):
            value = _vars(loader).get(part) if type(loader).__dictoffset__ else None
            # Lightning calls `set_epoch` after a resume, too.
            if _is_object(value) and not hasattr(type(value), "set_epoch"):
                yield from _attributes_of("train_dataloader", part, value, visited)


def _attributes_of(
    root: str, path: str, owner: object, visited: set[int], depth: int = MAX_DEPTH
) -> Iterator[tuple[str, Any]]:
    if id(owner) in visited:
        return
    visited.add(id(owner))
    set_by_libraries = _SET_BY_LIBRARIES[root] if depth == MAX_DEPTH else ()
    for key, value in list(_vars(owner).items()):
        name = f"{path}.{key}" if path else key
        if key in set_by_libraries:
            continue
        if _is_a(value, Tensor) or type(value) in _COMPARED:
            yield f"{root}.{name}", _mark(value)
        elif depth and _is_object(value):
            yield from _attributes_of(root, name, value, visited, depth - 1)


def _is_object(value: object) -> bool:
    """Tell objects of the user's own from those of libraries, functions and modules."""
    return type(value).__dictoffset__ != 0 and not _is_a(value, *_NO_OBJECTS) and not _is_of_library(value)


def _is_of_library(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in _LIBRARIES


def _is_a(value: object, *classes: type) -> bool:
    """Check the class without `isinstance`, which calls code of the user's proxies."""
    return issubclass(type(value), classes)


def _vars(value: object) -> dict[str, Any]:
    """Return the attributes without `vars`, which does so, too."""
    attributes: dict[str, Any] = object.__getattribute__(value, "__dict__")
    return attributes


def _overrides(instance: object, base: type, *names: str) -> bool:
    return any(getattr(type(instance), name) is not getattr(base, name) for name in names)


class _TensorMark:
    """Mark of a tensor: equal for the same one, unless it was changed in place. It does not keep the tensor alive."""

    __slots__ = ("_reference", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._reference = weakref.ref(tensor)
        self._version = tensor._version if type(tensor) is Tensor and not tensor.is_inference() else 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _TensorMark):
            return False
        tensor = self._reference()
        return tensor is not None and tensor is other._reference() and self._version == other._version

    __hash__ = None  # type: ignore[assignment]


def _mark(value: Any) -> Any:
    if value is None:
        return None
    if _is_a(value, Tensor):
        return _mark_item(value)
    kind = type(value)
    if kind in _CONTAINERS:
        return kind, len(value), [_mark_item(item) for item in _items(value)]
    if kind is np.ndarray:
        step = max(1, value.size // MAX_ITEMS)
        return value.shape, None if value.dtype.hasobject else value.flat[::step].tobytes()
    if kind is torch.Generator:
        return value.get_state().numpy().tobytes()
    return pickle.dumps(value) if kind in _GENERATORS else (value,)  # in a tuple, as NaN equals itself there


def _items(container: Any) -> list[Any]:
    """Return the items of a short container, and those at the ends of a long one."""
    ordered = container.items() if isinstance(container, dict) else container
    if len(container) <= MAX_ITEMS:
        return list(ordered)
    if isinstance(container, set | frozenset):
        return []
    return [*islice(ordered, MAX_ITEMS // 2), *islice(reversed(ordered), MAX_ITEMS // 2)]


def _mark_item(item: Any) -> Any:
    if _is_a(item, Tensor):
        return _TensorMark(item) if not _is_a(item, nn.Parameter) else id(item)  # checkpoints hold parameters
    if type(item) is tuple:
        return [_mark_item(part) for part in item[:MAX_ITEMS]]
    if type(item) in _CONTAINERS:
        return type(item), len(item)
    return item if type(item) in _PLAIN else id(item)
