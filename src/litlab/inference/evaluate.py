"""Evaluates a checkpoint in this process: Lightning's Trainer on one device, over one split."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from litlab.data.dataset_info import DatasetInfo
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.training.build import assemble, build_trainer

Config = dict[str, Any]


def measure(finished: FinishedRun, config: Config, checkpoint: Path, *, split: str, device: str) -> Config:
    """Evaluate a checkpoint; `config` holds what `assemble` and the Trainer need.

    Returns:
        `metrics` (name -> value), `device`, and `same_data`: whether the data are those of the run; None if not known.

    Raises:
        UserError: if the device or the data can't be had, or the classes are others.
    """
    recorded = finished.dataset_info() if finished.run.dataset.exists() else None
    _keep_statistics(config["data"], recorded)
    own = config["trainer"]["accelerator"]
    config["trainer"] |= {
        "accelerator": _accelerator(device, own),
        "num_nodes": 1,
        "strategy": "auto",
        "profiler": None,
    }
    with _quiet():
        experiment = assemble(config, rank=0, from_checkpoint=True)
        same_data = _compare(finished, recorded, experiment.dataset_info)
        trainer = build_trainer(config, finished.run, experiment.dataset_info, devices=1, callbacks=[], loggers=[])
        run = trainer.test if split == "test" else trainer.validate
        run(experiment.task, datamodule=experiment.data, ckpt_path=str(checkpoint), verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"device": trainer.strategy.root_device.type, "same_data": same_data, "metrics": metrics}


def _keep_statistics(node: Config, recorded: DatasetInfo | None) -> None:
    """Normalise as in training, wherever the data come from now."""
    if recorded is not None:
        node |= {key: list(getattr(recorded, key)) for key in ("mean", "std") if key in node}


def _accelerator(device: str, own: str) -> str:
    """Lightning's name for the device to use."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    if device == "auto":
        return "cpu" if own in ("gpu", "cuda") and not available else own
    return device


def _compare(finished: FinishedRun, recorded: DatasetInfo | None, found: DatasetInfo | None) -> bool | None:
    """Whether these are the data that the run recorded.

    Raises:
        UserError: if their classes differ: labels would not mean what the network was taught.
    """
    if recorded is None or found is None:
        return None
    if recorded.class_names != found.class_names:
        raise UserError(
            f"the classes of the data are {', '.join(found.class_names)}, but {finished.run.path} was trained on "
            f"{', '.join(recorded.class_names)}"
        )
    same = recorded.fingerprint == found.fingerprint
    if not same:
        print(f"litlab: note: these are not the data that {finished.run.path} was trained on", file=sys.stderr)
    return same


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips, and its warnings about settings that the run has chosen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
