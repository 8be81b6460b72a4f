"""A point of a run that it can be continued from, bit for bit."""

import copy
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.loop import _Loop
from torch import Tensor, nn
from torchmetrics import Metric

from litlab.tasks.metrics import LossAndAccuracy


def gather(trainer: Trainer, state: Any) -> list[Any]:
    """The states of all ranks, in their order; every rank has to call it with plain data."""
    if trainer.world_size == 1:
        return [state]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    device = trainer.strategy.root_device
    content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(device)
    sizes = _all(trainer, torch.tensor([len(content)], device=device)).flatten().tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
    padded[: len(content)] = content
    rows = _all(trainer, padded).reshape(len(sizes), -1).cpu()
    contents = [row[:size].numpy().tobytes() for row, size in zip(rows, sizes, strict=True)]
    return [torch.load(io.BytesIO(content), weights_only=True) for content in contents]


def _all(trainer: Trainer, value: torch.Tensor) -> torch.Tensor:
    gathered = trainer.strategy.all_gather(value)
    assert isinstance(gathered, torch.Tensor)
    return gathered


MetricsState = dict[str, dict[str, Any]]


def metrics_of(module: nn.Module) -> dict[str, Metric]:
    """All metrics within a module, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, Metric)}


def metrics_state(metrics: dict[str, Metric]) -> MetricsState:
    """Copies of the states of those metrics that have been updated."""
    for metric in metrics.values():
        if isinstance(metric, LossAndAccuracy):
            metric.add_up()
    return {
        name: {
            "updates": metric._update_count,
            "values": {key: _copy(getattr(metric, key)) for key in metric._defaults},
        }
        for name, metric in metrics.items()
        if metric._update_count
    }


def set_metrics_state(metrics: dict[str, Metric], state: MetricsState) -> None:
    """Go on where `metrics_state` was called; a metric that is not in it starts anew."""
    for name, metric in metrics.items():
        metric.reset()
        if name in state:
            for key, value in state[name]["values"].items():
                setattr(metric, key, _to(value, metric.device))
            metric._update_count = state[name]["updates"]


def merged(states: list[MetricsState], metrics: dict[str, Metric]) -> MetricsState:
    """What several ranks have summed up, as one rank would have; metrics that are no plain sums are left out."""
    names = [name for name in dict.fromkeys(name for state in states for name in state) if name in metrics]
    total: MetricsState = {}
    for name in names:
        if not all(map(_is_sum, metrics[name]._reductions.values())):
            continue
        parts = [state[name] for state in states if name in state]
        values = {key: torch.stack([part["values"][key] for part in parts]).sum(dim=0) for key in parts[0]["values"]}
        total[name] = {"updates": max(part["updates"] for part in parts), "values": values}
    return total


def _is_sum(reduction: Any) -> bool:
    return getattr(reduction, "__name__", "") == "dim_zero_sum"


def _copy(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [each.detach().clone() for each in value] if isinstance(value, list) else value.detach().clone()


def _to(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return [each.to(device) for each in value] if isinstance(value, list) else value.to(device, copy=True)


Progress = dict[str, Any]
_VALIDATION = "epoch_loop.val_loop.batch_progress"


def progress(trainer: Trainer) -> Progress:
    """All counters of the fit loop, and of the loops in it."""
    return trainer.fit_loop.state_dict()


def set_progress(trainer: Trainer, state: Progress) -> None:
    """Go on as in a run that was never interrupted, with the counters of `progress` at the same hook."""
    for prefix, loop in _loops(trainer.fit_loop, ""):
        loop._load_from_state_dict(copy.deepcopy(state), prefix)
    uninterrupted(trainer)


def uninterrupted(trainer: Trainer) -> None:
    """Make Lightning forget that it restarted."""
    for _, loop in _loops(trainer.fit_loop, ""):
        loop.on_iteration_done()


def within_validation(state: Progress) -> Progress:
    """Counters, taken when a validation began, that make Lightning begin that validation anew."""
    unfinished = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    numbers = {"total": dict(unfinished), "current": dict(unfinished), "is_last_batch": False}
    return copy.deepcopy(state) | {_VALIDATION: numbers}


def _loops(loop: _Loop, prefix: str) -> Iterator[tuple[str, _Loop]]:
    yield prefix, loop
    for name, child in vars(loop).items():
        if isinstance(child, _Loop):
            yield from _loops(child, f"{prefix}{name}.")


RandomState = dict[str, Any]


def random_state(device: torch.device) -> RandomState:
    """Python's, NumPy's, torch's and the device's."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state: RandomState = {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Go on where `random_state` was called; a device that it knows nothing of keeps its own."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


Loaders = dict[str, RandomState] | None
At = Literal["batch", "validation", "end"]


@dataclass
class Point:
    """What a checkpoint holds besides what Lightning puts there.

    Attributes:
        at: before a training batch, before a validation, or at the end of the fit.
        epoch, batch: how many epochs are done, and batches of the one after them.
        step: optimizer steps done.
        progress: Lightning's counters.
        random: of this rank.
        loaders: random states of this epoch's loaders, see `Position`.
        metrics: in flight, of this rank.
        gradients: in flight, of this rank, by parameter; only where the task steps by itself (manual optimization).
        should_stop: whether training is to end, once it has been for `min_epochs`.
    """

    at: At
    epoch: int
    batch: int
    step: int
    progress: Progress
    random: RandomState
    loaders: Loaders
    metrics: dict[str, Any]
    gradients: dict[str, torch.Tensor]
    should_stop: bool

    @classmethod
    def here(cls, trainer: Trainer, task: LightningModule, at: At, loaders: Loaders) -> "Point":
        """The point that the run is at, to be called in the hook that `at` names."""
        counted = trainer.fit_loop.epoch_loop.batch_progress.current
        return cls(
            at=at,
            epoch=trainer.current_epoch,
            batch=0 if at == "end" else counted.completed,
            step=trainer.global_step,
            progress=progress(trainer),
            random=random_state(trainer.strategy.root_device),
            loaders=loaders,
            metrics=metrics_state(metrics_of(task)),
            gradients={} if task.automatic_optimization else _gradients(task),
            should_stop=trainer.should_stop,
        )

    def add_to(self, trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Put it into Lightning's checkpoint, as `litlab`; every rank has to call it. Returns that part."""
        own = {"random": self.random, "loaders": self.loaders, "metrics": self.metrics}
        own["gradients"] = self.gradients
        part: dict[str, Any] = {"format": 1, "at": self.at, "epoch": self.epoch, "batch": self.batch, "step": self.step}
        part["progress"], part["should_stop"] = self.progress, self.should_stop
        part["ranks"] = gather(trainer, own)
        part["callback_metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        inside = self.at == "validation"
        checkpoint["loops"]["fit_loop"] = within_validation(self.progress) if inside else self.progress
        checkpoint["litlab"] = part
        return part


def own_part(part: dict[str, Any], trainer: Trainer, task: LightningModule) -> dict[str, Any]:
    """This rank's share of a checkpoint's `ranks`; with another number of ranks, the first takes what was summed up."""
    ranks: list[dict[str, Any]] = part["ranks"]
    if len(ranks) == trainer.world_size:
        return ranks[trainer.global_rank]
    rank = trainer.global_rank
    known = ranks[rank] if rank < len(ranks) else {"random": None, "loaders": ranks[0]["loaders"]}
    metrics = merged([each["metrics"] for each in ranks], metrics_of(task)) if rank == 0 else {}
    return known | {"metrics": metrics, "gradients": {}}


def _gradients(task: LightningModule) -> dict[str, torch.Tensor]:
    return {name: each.grad.detach().clone() for name, each in task.named_parameters() if each.grad is not None}


def arrive(part: dict[str, Any], trainer: Trainer, task: LightningModule) -> None:
    """Set everything that Lightning did not, in the hook that the checkpoint was saved in (or after)."""
    own = own_part(part, trainer, task)
    device = trainer.strategy.root_device
    set_metrics_state(metrics_of(task), own["metrics"])
    values = {name: torch.tensor(value, device=device) for name, value in part["callback_metrics"].items()}
    trainer._logger_connector._callback_metrics.update(values)
    parameters = dict(task.named_parameters())
    for name, gradient in own["gradients"].items():
        parameters[name].grad = gradient.to(parameters[name].device)
    if part["at"] == "end":
        uninterrupted(trainer)
    else:
        set_progress(trainer, part["progress"])
        trainer.should_stop = part["should_stop"]
    if own["random"] is not None:
        set_random_state(own["random"], device)


class Position:
    """Puts the training loaders where they were.

    litlab's own seek. Others are read from the start of their epoch, and what they draw at random, they draw from the
    global generators: when an epoch starts, and perhaps for each batch. So for these the random state of both is noted.

    Attributes:
        state: `epoch` and `batch`, random states; None for loaders that seek.
    """

    def __init__(self) -> None:
        self.state: dict[str, RandomState] | None = None

    def start(self, trainer: Trainer) -> None:
        """In `on_train_start` of a run that begins."""
        if not _seek(trainer):
            self.epoch_starts(trainer)
            _begin(trainer, trainer.current_epoch, 0)
            self._note_each_batch(trainer)

    def restart(self, trainer: Trainer, part: dict[str, Any], own: dict[str, Any]) -> None:
        """In `on_train_start` of a run that goes on; `own` is this rank's part of the checkpoint's."""
        device, seek = trainer.strategy.root_device, _seek(trainer)
        state = {"epoch": own["random"], "batch": own["random"]} if part["at"] == "end" else own["loaders"]
        self.state = None if seek else state
        if self.state is not None:
            set_random_state(self.state["epoch"], device)
        _begin(trainer, part["epoch"], part["batch"])
        if self.state is not None and part["at"] == "batch":  # this batch is read next
            set_random_state(self.state["batch"], device)
        if not seek:
            self._note_each_batch(trainer)

    def epoch_starts(self, trainer: Trainer) -> None:
        """In `on_train_epoch_start`, after which Lightning starts the loaders."""
        if not _seek(trainer):
            now = random_state(trainer.strategy.root_device)
            self.state = {"epoch": now, "batch": now}

    def _note_each_batch(self, trainer: Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        lightnings = loop._on_before_fetch

        def note() -> None:
            assert self.state is not None
            self.state = self.state | {"batch": random_state(trainer.strategy.root_device)}
            lightnings()

        loop._on_before_fetch = note  # type: ignore[method-assign]


def _seek(trainer: Trainer) -> bool:
    return all(hasattr(loader, "seek") for loader in _loaders(trainer))


def _begin(trainer: Trainer, epoch: int, batch: int) -> None:
    """Make Lightning's next training batch number `batch` of `epoch`, both counted from 0."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    # After a restart Lightning starts the validation loaders to count their batches, which may draw random numbers.
    trainer.fit_loop.epoch_loop.val_loop.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    for loader in _loaders(trainer):
        _set_sampler_epoch(loader, epoch)
        if hasattr(loader, "seek"):
            loader.seek(batch)
    iter(fetcher)
    if not _seek(trainer):
        assert fetcher.iterator is not None
        for _ in range(batch):
            next(fetcher.iterator)


def _loaders(trainer: Trainer) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return list(combined.flattened)
