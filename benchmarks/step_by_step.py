"""The loop by hand, a step of it after each step of a litlab run: both find the machine alike, however uneven it is."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from benchmarks.bare import BareLoop, SideBySide, now


class StepByStep(SideBySide):
    """As `SideBySide`, but for the loop by hand, which makes its steps between those of litlab. On a CPU only.

    A GPU would have to be waited for at every step, which neither of them does.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bare = self._contenders["bare"]
        assert isinstance(bare, BareLoop)
        for name, contender in self._contenders.items():
            self._seconds[name].append(0.0 if contender is bare else contender.train(trainer.current_epoch))
        self._steps = bare.steps(trainer.current_epoch)
        self._seconds["litlab"].append(0.0)
        self._resumed = now(self._device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        began = now(self._device)
        self._seconds["litlab"][-1] += began - self._resumed
        next(self._steps)
        self._resumed = now(self._device)
        self._seconds["bare"][-1] += self._resumed - began
