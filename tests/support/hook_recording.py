"""Recording of all hooks of a fit, to compare litlab's epoch loop with Lightning's."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support.small_fit import Batches, Rows, make_trainer
from torch import Tensor, nn

from litlab.data.loader import Batch
from litlab.training.epoch_loop import EpochLoop, NoProfiler
from litlab.training.train_state import get_progress

Event = tuple[str, dict[str, Any]]
_UNSEEN = ("on_save_checkpoint", "on_load_checkpoint")


def hooks_of(base: type) -> list[str]:
    """List all hooks that this version of Lightning has, so that a new one is noticed."""
    return [
        name for name in dir(base) if name.startswith("on_") and name not in _UNSEEN and callable(getattr(base, name))
    ]


class Recorder(Callback):
    """Records every hook of callbacks, with counters, arguments and the name that `self.log` uses."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        for name in hooks_of(Callback):
            setattr(self, name, self._recording(name))

    def _recording(self, name: str) -> Callable[..., None]:
        def record(trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
            self.events.append((f"callback {name}", _facts(trainer, pl_module, arguments)))

        return record


class Recorded(LightningModule):
    """A module with logged values and every hook but `on_train_batch_start`, which Lightning itself has to call."""

    def __init__(self, *, interval: str = "step", output: str = "tensor", takes_index: bool = True) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Dropout(0.2))
        self.events: list[Event] = []
        self.interval, self.output = interval, output
        if not takes_index:
            self.training_step = lambda batch: self._train(batch, 0)
        for name in hooks_of(LightningModule):
            if name not in ("on_train_batch_start", "on_gpu", "on_after_batch_transfer", "on_before_batch_transfer"):
                setattr(self, name, self._recording(name))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self._train(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=len(batch.labels))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if self.interval == "plateau":
            schedule: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/loss"}}
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        frequency = 2 if self.interval == "step" else 1
        config = {"scheduler": schedule, "interval": self.interval, "frequency": frequency}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.network(batch.images.to(self.dtype)).float(), batch.labels)

    def _train(self, batch: Batch, batch_idx: int) -> Any:
        self.events.append(("training_step", _facts(self.trainer, self, (batch, batch_idx))))
        loss = self._loss(batch)
        self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=len(batch.labels))
        if self.output == "none" and batch_idx % 2:
            return None
        return {"loss": loss, "labels": batch.labels} if self.output == "mapping" else loss

    def _recording(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.events.append((f"module {name}", _facts(self.trainer, self, arguments)))


def fit(module: Recorded, *, replaced: bool, **changes: Any) -> dict[str, Any]:
    """Fit with Lightning's epoch loop, or with the one that replaces it.

    Returns:
        All events in their order, logged rows, counters, weights and the optimizer's state.
    """
    rows, recorder = Rows(), Recorder()
    module.events = recorder.events
    rows.log_hyperparams = lambda *_: None  # type: ignore[method-assign]
    arguments = {"max_epochs": 2, "log_every_n_steps": 2, "profiler": NoProfiler()} | changes
    data = arguments.pop("data", Batches(37))
    trainer = make_trainer([rows], [recorder, *arguments.pop("callbacks", [])], **arguments)
    if replaced:
        EpochLoop.install(trainer)
    torch.manual_seed(4)
    trainer.fit(module, data, Batches(9))
    return {
        "events": recorder.events,
        "rows": rows.rows,
        "weights": copy.deepcopy(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "progress": get_progress(trainer),
        "metrics": dict(trainer.callback_metrics),
        "step": trainer.global_step,
    }


def _facts(trainer: Trainer, module: LightningModule, arguments: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "progress": get_progress(trainer),
        "step": trainer.global_step,
        "within": module._current_fx_name,
        "last": trainer.is_last_batch if trainer.training else None,
        "arguments": [_plain(argument) for argument in arguments],
        "random": torch.get_rng_state(),
        "gradients": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "rates": [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Batch | dict):
        items = value._asdict() if isinstance(value, Batch) else value
        return {name: _plain(item) for name, item in items.items()}
    return value.detach().clone() if isinstance(value, Tensor) else value if isinstance(value, int) else type(value)
