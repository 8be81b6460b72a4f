"""The loop by hand and a litlab run, a few steps each in turn: both find the machine alike, however uneven it is."""

from itertools import islice
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from benchmarks.bare import BareLoop, SideBySide, now

STEPS_IN_A_ROW = 16  # the first finds the other's code in the processor's caches, as no step of a real run does


class StepByStep(SideBySide):
    """`SideBySide` whose loop by hand takes turns with litlab during the epoch. On a CPU only.

    A GPU would have to be waited for at every turn, which neither of them does.
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
        if (batch_idx + 1) % STEPS_IN_A_ROW and not trainer.is_last_batch:
            return
        began = now(self._device)
        self._seconds["litlab"][-1] += began - self._resumed
        for _ in islice(self._steps, STEPS_IN_A_ROW):
            pass
        self._resumed = now(self._device)
        self._seconds["bare"][-1] += self._resumed - began
