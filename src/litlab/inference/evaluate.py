"""Evaluation of a checkpoint on one split, by Lightning's Trainer on one device."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import torch
from lightning.pytorch import LightningModule

from litlab.config.machine_facts import with_machine_facts
from litlab.config.tree import Config
from litlab.data.dataset_info import DatasetInfo
from litlab.data.image_decoder import MAX_BIT_DEPTH
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.tasks.logged_metrics import ValueRecorder
from litlab.training.build import assemble, build_trainer, find_missing_methods

_MAX_LINE = 200  # characters of a line that lists keys of a checkpoint
_SOURCE_KEYS = ("root", "path", "name", "revision")  # of `data`, where the images come from


def evaluate(finished: FinishedRun, config: Config, checkpoint: Path, *, split: str, device: str) -> Config:
    """Evaluate a checkpoint in this process.

    Args:
        finished: Run that the checkpoint is of.
        config: Parts of its config that `assemble` and the Trainer need; they are changed.
        checkpoint: Checkpoint file.
        split: "val" or "test".
        device: "cpu", "cuda" or "auto".

    Returns:
        `metrics` by name; `device`; `same_data`, which is True for the data of the run and None if that is unknown.

    Raises:
        UserError: If the device or the data are not available, the classes differ, or the module has no such split.
    """
    recorded = finished.dataset_info() if config["data"] and finished.run.dataset.exists() else None
    if recorded is not None:  # scale and normalize as in training, wherever the data are now
        is_other = any(config["data"].get(key) != finished.config["data"].get(key) for key in _SOURCE_KEYS)
        kept: Config = {"mean": list(recorded.mean), "std": list(recorded.std)}
        if depth := recorded.bit_depth or (is_other and (config["data"].get("bit_depth") or MAX_BIT_DEPTH)):
            kept["bit_depth"] = depth
        config["data"] |= {key: value for key, value in kept.items() if key in config["data"]}
        if is_other:
            config["data"] |= _for_evaluation(config["data"], recorded)
    if config["trainer"].get("precision") == "auto":
        config["trainer"]["precision"] = with_machine_facts(finished.run, finished.config)["trainer"]["precision"]
    accelerator = _select_accelerator(device, config["trainer"]["accelerator"])
    config["trainer"] |= {"accelerator": accelerator, "num_nodes": 1, "strategy": "auto", "profiler": None}
    with _lightning_muted():
        experiment = assemble(config, rank=0, from_checkpoint=True)
        if missing := find_missing_methods(experiment)["test" if split == "test" else "validation"]:
            raise UserError(f"{split} cannot be evaluated: {' and '.join(missing)} not defined")
        _check_images(experiment.dataset_info, split)
        objective = finished.config["objective"]
        recorder = ValueRecorder(objective["metric"] if objective else None)
        same_data = _compare_data(finished, recorded, experiment.dataset_info)
        trainer = build_trainer(
            config, finished.run, experiment.dataset_info, devices=1, callbacks=[recorder], loggers=[]
        )
        run = trainer.test if split == "test" else trainer.validate
        with _mismatch_explained(checkpoint, experiment.task):
            run(experiment.task, datamodule=experiment.data, ckpt_path=str(checkpoint), verbose=False)
    metrics = recorder.tested if split == "test" else recorder.validated
    return {"device": trainer.strategy.root_device.type, "same_data": same_data, "metrics": metrics}


@contextmanager
def _mismatch_explained(checkpoint: Path, task: LightningModule) -> Iterator[None]:
    """Raise a UserError if a checkpoint that is loaded within the context has not the weights of the task."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        keys = "\n".join(shorten(line, _MAX_LINE) for line in str(error).splitlines()[1:])
        raise UserError(
            f"{checkpoint}: its weights are not those of {type(task).__name__}: has the code changed since the commit "
            f"in provenance.json, or does it replace a module when the training begins, as by torch.compile?\n{keys}"
        ) from error


def _select_accelerator(device: str, trained_on: str) -> str:
    """Return Lightning's name for the device to use."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    if device == "auto":
        return "cpu" if trained_on in ("gpu", "cuda") and not available else trained_on
    return device


def _for_evaluation(data: Config, recorded: DatasetInfo) -> Config:
    """Return the settings by which other images are read with the classes of the run."""
    if data["_target_"] != "litlab.data.image_folder.ImageFolder":
        return {}
    return {
        "_target_": "litlab.data.image_folder.EvaluationFolder",
        "trained_classes": list(recorded.class_names),
        "trained_counts": recorded.class_counts,
        "trained_fingerprint": recorded.fingerprint,
    }


def _check_images(info: DatasetInfo | None, split: str) -> None:
    """Print what was left out of the data; raise a UserError if a split has no images."""
    for note in info.notes if info is not None else ():
        print(f"litlab: note: {note}", file=sys.stderr)
    if info is not None and not (info.num_test if split == "test" else info.num_val):
        raise UserError(f"--split {split}: the data have no {'test' if split == 'test' else 'validation'} images")


def _compare_data(finished: FinishedRun, recorded: DatasetInfo | None, current: DatasetInfo | None) -> bool | None:
    """Compare the data with those that the run recorded; None if either are unknown.

    Raises:
        UserError: If their classes differ, since labels would not mean what the network was trained on.
    """
    if recorded is None or current is None or not current.num_train:
        return None
    if recorded.class_names != current.class_names:
        raise UserError(
            f"the classes of the data are {', '.join(current.class_names)}, but {finished.run.path} was trained on "
            f"{', '.join(recorded.class_names)}"
        )
    same = recorded.fingerprint == current.fingerprint
    if not same:
        print(f"litlab: note: these are not the data that {finished.run.path} was trained on", file=sys.stderr)
    return same


@contextmanager
def _lightning_muted() -> Iterator[None]:
    """Mute Lightning's tips, and its warnings about settings that the run has chosen."""
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
