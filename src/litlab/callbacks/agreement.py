"""One decision for all ranks, at the same batch."""

import time

import torch
from lightning.pytorch import Trainer

SOON = 0.25  # seconds between two agreements that are aimed at
MOST = 64  # batches


class Agreement:
    """Brings together what single ranks know: a signal that came, a clock that ran out.

    All ranks ask at the same batches. Each agreement costs a round of messages, so they come to one every so many
    batches only, as many as take about a quarter of a second.
    """

    def __init__(self) -> None:
        self._every = 1
        self._left = 1
        self._since = time.monotonic()

    def __call__(self, trainer: Trainer, *wishes: int, now: bool = False) -> tuple[int, ...]:
        """The largest wish of any rank, for each kind of wish; zeros between two agreements, unless it is to be `now`.

        One rank gets its own wishes.
        """
        if trainer.world_size == 1:
            return wishes
        self._left -= 1
        if self._left and not now:
            return (0,) * len(wishes)
        moment = time.monotonic()
        mine = torch.tensor([*wishes, moment - self._since], dtype=torch.float32, device=trainer.strategy.root_device)
        *agreed, seconds = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        self._every = min(2 * self._every, MOST) if seconds < SOON else max(1, self._every // 2)
        self._left, self._since = self._every, moment
        return tuple(int(each) for each in agreed)
