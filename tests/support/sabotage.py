"""Callbacks for the jobs of the tests: delay or hang their process, or record facts about it."""

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from litlab.runs.files import write_json


class Sabotage(Callback):
    """From the third batch on, sleeps a moment (`sleep`), or for good and deaf to every exception (`hang`)."""

    def __init__(self, *, how: str) -> None:
        self._hangs = how == "hang"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx >= 2:
            time.sleep(0.05)
            while self._hangs:
                with suppress(BaseException):
                    time.sleep(60)


class ProcessFacts(Callback):
    """Write facts about the process of each rank to process.RANK.json; print a line."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(f"printed by rank {trainer.global_rank}")
        facts = {
            "environment": dict(os.environ),
            "libc": ctypes.string_at(getenv(b"JOB_OF_THE_TEST")).decode() if getenv(b"JOB_OF_THE_TEST") else None,
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "threads": torch.get_num_threads(),
            "input": os.read(0, 1).decode(),
            "descriptors": sorted(
                str(descriptor.readlink()) for descriptor in Path("/proc/self/fd").iterdir() if descriptor.is_symlink()
            ),
        }
        write_json(Path(trainer.default_root_dir, f"process.{trainer.global_rank}.json"), facts, sync=False)


getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_void_p
