"""User callbacks that end a job in different ways; copied into the project of a test."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


def fail() -> None:
    raise ArithmeticError("a fault of the user's own")


def segfault() -> None:
    ctypes.string_at(0)


KILL = partial(signal.raise_signal, signal.SIGKILL)
FAULTS: dict[int, Callable[[], object]] = {  # by seed
    0: partial(time.sleep, 3600),  # while it hangs, the others run
    7: fail, 8: fail, 17: fail, 2: sys.exit, 11: partial(os._exit, 0), 3: KILL, 13: KILL, 5: segfault,
}  # fmt: skip


class FailingJob(Callback):
    """Ends the job of some seeds at the third step."""

    def __init__(self, *, seed: int) -> None:
        self.fault = FAULTS.get(seed)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3 and self.fault is not None:
            self.fault()


class MemoryEater(Callback):
    """Makes one job run out of memory in a small control group."""

    def __init__(self, *, seed: int, group: str) -> None:
        self.seed, self.group = seed, Path(group)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.seed == 1 and trainer.global_step == 3:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
            self.memory = [bytearray(os.urandom(1 << 20)) for _ in range(2000)]


class SlowJob(Callback):
    """Sleeps at each step, and records each start of the job."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with Path(trainer.default_root_dir, "starts").open("a") as file:
            file.write(f"{trainer.global_step}\n")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        time.sleep(self.seconds)
