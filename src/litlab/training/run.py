"""Training of one run in this process, from its newest checkpoint to its result."""

import logging
import math
import sys
import time
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from litlab.callbacks.checkpoint import BestTracker, Checkpoints
from litlab.callbacks.console import Console
from litlab.callbacks.divergence import Divergence
from litlab.callbacks.training_log import Timing, TrainingClock
from litlab.config.identity import identity
from litlab.config.machine_facts import open_keys, with_machine_facts
from litlab.config.secrets import resolve_secrets
from litlab.config.validate import find_mode_problem
from litlab.errors import UserError
from litlab.loggers import MetricsLogger, log_config, log_result
from litlab.process.ranks import global_rank, num_local_ranks, num_nodes
from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.heartbeat import HeartbeatThread
from litlab.runs.metrics import Row, last_values, read_metrics
from litlab.runs.processor import processor_name
from litlab.runs.provenance import describe_machine
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.tasks.frozen_parameters import count_parameters
from litlab.tasks.image_classifier import ImageClassifier
from litlab.tasks.logged_metrics import ValueRecorder
from litlab.tensorboard_session import end_session, logs_to_tensorboard, start_session
from litlab.training.build import (
    Experiment,
    assemble,
    build_callbacks,
    build_loggers,
    build_trainer,
    find_missing_methods,
)
from litlab.training.checkpoint_io import hash_weights, read_checkpoint
from litlab.training.resume import ResumeState, find_best_problem, get_limits
from litlab.training.train_state import set_progress
from litlab.training.warm_start import WarmStart, load_initial_weights

Config = dict[str, Any]
_log = logging.getLogger("litlab")


def train(
    run: RunDirectory,
    frozen: Config,
    stop: StopRequest,
    *,
    started: float,
    silent: bool = False,
    heartbeat: HeartbeatThread | None = None,
) -> RunStatus:
    """Train and test the experiment of a run directory, and write its result.

    Args:
        run: Run directory. Training resumes from its newest checkpoint.
        frozen: Frozen config, which goes into files. Objects are built from a copy with secrets, which goes nowhere.
        stop: Request to stop, which a signal makes.
        started: Time at which the process started, by `time.perf_counter`.
        silent: Whether to write messages only to run.log.
        heartbeat: Heartbeat of the run, to report the progress.

    Returns:
        Status of the run: completed or diverged.

    Raises:
        Stopped: If the process was requested to stop.
        UserError: For mistakes in the config, the data or the checkpoints.
    """
    timer = PhaseTimer(started)
    timer.end("import")

    config = resolve_secrets(with_machine_facts(run, frozen))
    resume = ResumeState.find(run)
    experiment = assemble(config, rank=global_rank(), from_checkpoint=resume.saved is not None)
    _check_objective(config["objective"], experiment)
    init = config.get("init_from") if resume.saved is None else None
    warm_start = load_initial_weights(run, init, experiment.task) if init else None
    missing, info = find_missing_methods(experiment), experiment.dataset_info
    resume.check(run, config["trainer"], experiment.fingerprint)
    if global_rank() == 0:
        resume.restore_files(run)
        start_session(run, frozen)
        if info is not None:
            write_json(run.dataset, info.to_dict())
        _warn([*resume.warnings, *(info.notes if info else ())], missing, silent=silent)
    timer.end("data_and_network")

    console = Console(
        run=run,
        name=config["name"],
        seed=config["seed"],
        resumed=resume.saved,
        warm_start=warm_start.describe() if warm_start else [],
        silent=silent,
    )
    recorder = ValueRecorder(_objective_metric(config))
    trainer = _build_trainer(run, config, experiment, resume, stop, console, recorder)
    if trainer.is_global_zero:
        _record_start(run, trainer, open_keys(frozen), warm_start)
        log_config(trainer.loggers, frozen, is_new=resume.checkpoint is None)
    if heartbeat is not None:
        heartbeat.read_progress = partial(_read_progress, trainer)
    timer.end("trainer")

    with stop.deferred():
        if resume.saved is not None and resume.is_finished(config["trainer"]):
            set_progress(trainer, resume.saved["progress"])  # the test is logged at the last step
        else:
            _fit(trainer, experiment, resume.checkpoint)
        timer.end("fit")

        final = read_checkpoint(run.last)
        diverged = _find_divergence(run, config, final["litlab"])
        stop_reason = final["litlab"]["stop_reason"] if diverged is None else None
        if trainer.is_global_zero and stop_reason is not None:
            console.note(stop_reason)
        tested = _select_weights(run, final["litlab"])
        has_test = not missing["test"] and (info is None or info.num_test)
        is_testable = diverged is None or tested == run.best  # NaN may raise errors in user code
        if has_test and is_testable:
            _test(trainer, experiment, tested)
        timer.end("test")

    if trainer.is_global_zero:
        result = _build_result(run, frozen, experiment, trainer, final, recorder.tested, timer.seconds, diverged)
        log_result(trainer.loggers, result)
        end_session(run, frozen, result)  # before the result, since a run that has one is not looked at again
        write_result(run, result)
        console.table(result, has_tensorboard=logs_to_tensorboard(frozen))
    return RunStatus.DIVERGED if diverged else RunStatus.COMPLETED


def _fit(trainer: Trainer, experiment: Experiment, checkpoint: Path | None) -> None:
    """Train.

    Raises:
        UserError: If the validations are to be farther apart than an epoch is long: then Lightning raises a ValueError.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")
        try:
            trainer.fit(experiment.task, datamodule=experiment.data, ckpt_path=checkpoint)
        except ValueError as error:
            num_batches, interval = trainer.fit_loop.max_batches, trainer.val_check_interval
            is_longer = isinstance(interval, int) and interval > num_batches
            if trainer.check_val_every_n_epoch is None or not is_longer:
                raise
            raise UserError(
                f"trainer.val_check_interval={interval}: an epoch has {num_batches} batches; expected at most that, or "
                f"a fraction of an epoch such as 0.5. To validate every {interval} batches across epochs, add "
                "trainer.check_val_every_n_epoch=null"
            ) from error


def _test(trainer: Trainer, experiment: Experiment, checkpoint: Path) -> None:
    trainer.test(experiment.task, datamodule=experiment.data, ckpt_path=str(checkpoint), verbose=False)


def _read_progress(trainer: Trainer) -> tuple[int, int, int]:
    """Return step, epoch and the number of evaluation batches, for the heartbeat."""
    loops = (trainer.fit_loop.epoch_loop.val_loop, trainer.test_loop)
    return trainer.global_step, trainer.current_epoch, sum(loop.batch_progress.total.ready for loop in loops)


class PhaseTimer:
    """Timer of phases that follow one another.

    Attributes:
        seconds: Seconds of each completed phase.
    """

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._started = started

    def end(self, phase: str) -> None:
        """End a phase, which started when the one before it ended."""
        now = time.perf_counter()
        self.seconds[phase] = round(now - self._started, 3)
        self._started = now


def _warn(messages: list[str], missing: dict[str, list[str]], *, silent: bool) -> None:
    """Log and print the messages, then the splits that lack methods."""
    lacking = [f"no {split}: {' and '.join(methods)} not defined" for split, methods in missing.items() if methods]
    for message in filter(None, [*messages, "; ".join(lacking)]):
        _log.warning(message)
        if not silent:
            print(f"litlab: {message}", file=sys.stderr)


def _build_trainer(
    run: RunDirectory,
    config: Config,
    experiment: Experiment,
    resume: ResumeState,
    stop: StopRequest,
    console: Console,
    recorder: ValueRecorder,
) -> Trainer:
    """Build the Trainer, with litlab's own callbacks before those of the config, and the console after them."""
    checkpoints = Checkpoints(
        run=run,
        stop=stop,
        **config["checkpoint"],
        metadata={"limits": get_limits(config["trainer"]), "data": experiment.fingerprint},
        best=BestTracker(**config["objective"]) if config["objective"] else None,
        timing=Timing(),
        divergence=Divergence(),
        saved=resume.saved,
        note=console.note,
    )
    devices = config["trainer"]["devices"]
    trainer = build_trainer(
        config | {"trainer": config["trainer"] | {"num_nodes": num_nodes()}},
        run,
        experiment.dataset_info,
        devices=devices if isinstance(devices, list) else num_local_ranks(),
        # The console comes last, since it prints what the others have logged for the same batch.
        callbacks=[
            checkpoints,
            checkpoints.timing,
            checkpoints.divergence,
            *build_callbacks(config, experiment.facts),
            recorder,
            console,
        ],
        # The logger of metrics.csv comes last: `self.logger` of a task is the first one of the config.
        loggers=[*build_loggers(config, run), MetricsLogger(run, _objective_metric(config))],
    )
    if config["trainer"].get("precision") == "16-mixed" != trainer.precision:  # on a CPU, Lightning takes bfloat16
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use bf16-mixed, bf16-true or 32-true")
    return trainer


def _check_objective(objective: Config | None, experiment: Experiment) -> None:
    """Raise a UserError if the mode of the objective contradicts what its metric says of itself."""
    if objective and isinstance(experiment.task, ImageClassifier):
        modes = {metric.name: metric.mode for metric in experiment.task.describe_metrics()}
        if problem := find_mode_problem(objective, modes.get(objective["metric"])):
            raise UserError(problem)


def _objective_metric(config: Config) -> str | None:
    return config["objective"]["metric"] if config["objective"] else None


def _record_start(run: RunDirectory, trainer: Trainer, automatic: list[str], warm_start: WarmStart | None) -> None:
    """Complete provenance.json with what only the worker knows, and the keys that the config leaves open."""
    device = trainer.strategy.root_device
    machine = describe_machine() | {
        "device": _device_name(trainer) if device.type == "cuda" else device.type,
        "accelerator": type(trainer.accelerator).name(),
        "devices": num_local_ranks(),
        "ranks": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
        "automatic": automatic,
    }
    weights = {"init_from": asdict(warm_start)} if warm_start else {}
    write_json(run.provenance, run.read_mapping(run.provenance) | {"machine": machine} | weights)


def _device_name(trainer: Trainer) -> str:
    """Return the name of the GPU, or of the processor, on which this process trains."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def _select_weights(run: RunDirectory, saved: dict[str, Any]) -> Path:
    """Select the checkpoint to test: the best one; the last one if there is no best, it is lost, or it is the last."""
    best = saved["best"]
    return run.best if best and best["step"] != saved["step"] and not find_best_problem(run, saved) else run.last


def _logged_rows(run: RunDirectory) -> list[Row]:
    """Read metrics.csv, which a run lacks if nothing was logged."""
    return read_metrics(run.metrics) if run.metrics.exists() else []


def _find_divergence(run: RunDirectory, config: Config, saved: dict[str, Any]) -> str | None:
    """Tell why a training that has ended diverged; None if it did not."""
    reason: str | None = saved.get("diverged")
    if reason is None and (objective := config["objective"]):
        values = [row.value for row in _logged_rows(run) if row.metric == objective["metric"]]
        if values and not any(map(math.isfinite, values)):
            return f"{objective['metric']} was never a finite number"
    return reason


def _build_result(
    run: RunDirectory,
    config: Config,
    experiment: Experiment,
    trainer: Trainer,
    final: dict[str, Any],
    test_metrics: dict[str, float],
    seconds: dict[str, float],
    diverged: str | None,
) -> Result:
    """Build the result from the final checkpoint, so that interruptions make no difference to it."""
    saved = final["litlab"]
    best = saved["best"] or {"value": None, "metrics": {}}
    clock = TrainingClock()
    clock.set_state(saved["training"])
    network = experiment.network or experiment.task
    parameters, trainable = count_parameters(network, experiment.task, saved["modules"]["requires_grad"])
    return Result(
        status=RunStatus.DIVERGED if diverged else RunStatus.COMPLETED,
        error=diverged,
        identity=identity(config),
        objective=best["value"],
        best=best["metrics"],
        last=last_values(_logged_rows(run)),
        test=test_metrics,
        epochs=saved["epoch"],
        steps=saved["step"],
        data=experiment.fingerprint,
        parameters=parameters,
        trainable_parameters=trainable,
        weights=hash_weights(final["state_dict"]),
        stop_reason=saved["stop_reason"] if diverged is None else None,
        device=_device_name(trainer),
        precision=trainer.precision,
        seconds=seconds | {"training": round(clock.seconds, 3), "saving": round(saved["seconds_saving"], 3)},
        images_per_second=clock.images_per_second,
    )
