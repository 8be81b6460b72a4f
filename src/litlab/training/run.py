"""Trains one experiment in this process: fit, test, result. A rank of several does the same as the only one."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from litlab.callbacks.checkpoint import Best, Checkpoints, When
from litlab.callbacks.console import Console
from litlab.callbacks.training_log import Timing, TrainingClock
from litlab.config.freeze import identity, to_yaml
from litlab.config.secrets import with_secrets
from litlab.errors import UserError
from litlab.loggers import MetricsLogger, TensorBoard, log_config
from litlab.process.ranks import global_rank, machines, ranks_here
from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.metrics import last_values, read_metrics
from litlab.runs.provenance import of_machine
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.tensorboard import end_session, start_session
from litlab.training.build import Experiment, assemble, build_callbacks, build_loggers, build_trainer
from litlab.training.checkpoint_io import read_checkpoint, weights_hash
from litlab.training.resume import Start, limits, lost_best
from litlab.training.state import set_progress

Checkpoint = dict[str, Any]
Config = dict[str, Any]


@dataclass
class Clock:
    """Seconds of each phase, one after the other."""

    seconds: dict[str, float]
    since: float

    def ends(self, phase: str) -> None:
        """Note the seconds since the phase before ended."""
        now = time.perf_counter()
        self.seconds[phase] = round(now - self.since, 3)
        self.since = now


def train(run: RunDirectory, frozen: Config, stop: StopRequest, *, started: float, silent: bool = False) -> None:
    """Train and test the experiment of a run directory, from its newest checkpoint on, and write its result.

    `frozen` goes into files; objects are built from a copy with the secrets in it, which goes nowhere else.
    What a `silent` run says goes to run.log alone.

    Raises:
        Stopped: if the process was asked to stop.
        UserError: for what the config, the data or the checkpoints get wrong.
    """
    clock = Clock({}, started)
    clock.ends("import")
    rank, config = global_rank(), with_secrets(frozen)
    start = Start.find(run)
    experiment = assemble(config, rank=rank, from_checkpoint=start.part is not None)
    start.check(run, config["trainer"], _fingerprint(experiment))
    if rank == 0:
        start.prepare(run)
        start_session(run, frozen)
        if experiment.facts is not None:
            write_json(run.dataset, experiment.facts.to_dict())
    clock.ends("data_and_network")
    console = Console(run=run, name=config["name"], seed=config["seed"], resumed=start.part, silent=silent)
    trainer = _trainer(run, frozen, config, experiment, start, stop, console)
    clock.ends("trainer")
    with stop.deferred():
        if start.part is not None and start.is_finished(config["trainer"]):
            set_progress(trainer, start.part["progress"])  # the test is logged at the last step
        else:
            _fit(trainer, experiment, start)
        clock.ends("fit")
        final = read_checkpoint(run.last)
        tested = str(_to_test(run, final["litlab"]))
        trainer.test(experiment.task, datamodule=experiment.data, ckpt_path=tested, verbose=False)
        clock.ends("test")
    if rank == 0:
        result = _result(run, frozen, experiment, final, _numbers(trainer.callback_metrics), clock)
        _tell(run, frozen, trainer, result)
        console.table(result)


def _tell(run: RunDirectory, config: Config, trainer: Trainer, result: Result) -> None:
    """How it ended: TensorBoard first, since a run with a result.json is not looked at again."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.close()
    end_session(run, config, result)
    write_result(run, result)


def _trainer(
    run: RunDirectory,
    frozen: Config,
    config: Config,
    experiment: Experiment,
    start: Start,
    stop: StopRequest,
    console: Console,
) -> Trainer:
    """The Trainer with litlab's own callbacks before those of the config."""
    checkpoints = _checkpoints(run, config, experiment, start, stop)
    ours: list[Callback] = [checkpoints, checkpoints.timing, console]
    trainer = build_trainer(
        config | {"trainer": config["trainer"] | {"num_nodes": machines()}},
        run,
        experiment.facts,
        devices=_devices(config),
        callbacks=ours + build_callbacks(config, experiment.facts),
        loggers=[MetricsLogger(run), *build_loggers(config, run)],
    )
    _check_precision(config, trainer)
    if trainer.is_global_zero:
        _write_machine(run, trainer)
        if start.checkpoint is None:
            log_config(trainer.loggers, to_yaml(frozen))
    return trainer


def _check_precision(config: Config, trainer: Trainer) -> None:
    """
    Raises:
        UserError: where Lightning would compute in another precision than the config says.
    """
    if config["trainer"].get("precision") == "16-mixed" != trainer.precision:
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use bf16-mixed, bf16-true or 32-true")


def _fit(trainer: Trainer, experiment: Experiment, start: Start) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch")  # we seek
        trainer.fit(experiment.task, datamodule=experiment.data, ckpt_path=start.checkpoint)


def _to_test(run: RunDirectory, part: dict[str, Any]) -> Path:
    """The best weights, unless there is no best one, its file is lost, or it is the last."""
    best = part["best"]
    return run.best if best and best["step"] != part["step"] and not lost_best(run, part) else run.last


def _checkpoints(
    run: RunDirectory, config: Config, experiment: Experiment, start: Start, stop: StopRequest
) -> Checkpoints:
    """There is a best one only with an objective and validation images."""
    measured = config["objective"] and (experiment.facts is None or experiment.facts.num_val > 0)
    return Checkpoints(
        run=run,
        stop=stop,
        when=When(**config["checkpoint"]),
        facts={"limits": limits(config["trainer"]), "data": _fingerprint(experiment)},
        best=Best(**config["objective"]) if measured else None,
        timing=Timing(),
        restored=start.part,
    )


def _result(
    run: RunDirectory, config: Config, experiment: Experiment, final: Checkpoint, test: dict[str, float], clock: Clock
) -> Result:
    """Of what the final checkpoint knows, so that it makes no difference how often the run was interrupted."""
    part, rows = final["litlab"], read_metrics(run.metrics)
    timing = TrainingClock()
    timing.set_state(part["training"])
    network = experiment.network or experiment.task
    return Result(
        status=RunStatus.COMPLETED,
        identity=identity(config),
        objective=part["best"]["value"] if part["best"] else None,
        best=part["best"]["metrics"] if part["best"] else {},
        last=last_values(rows),
        test=test,
        epochs=part["epoch"],
        steps=part["step"],
        data=_fingerprint(experiment),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights=weights_hash(final["state_dict"]),
        seconds=clock.seconds | {"training": round(timing.seconds, 3), "saving": round(part["seconds_saving"], 3)},
        images_per_second=timing.images_per_second,
    )


def _fingerprint(experiment: Experiment) -> str | None:
    return experiment.facts.fingerprint if experiment.facts else None


def _devices(config: Config) -> int | list[int]:
    devices = config["trainer"]["devices"]
    if isinstance(devices, list):
        return devices
    return ranks_here()


def _numbers(values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _write_machine(run: RunDirectory, trainer: Trainer) -> None:
    """Complete provenance.json with what only the worker knows."""
    recorded = run.read_json(run.provenance) if run.provenance.exists() else {}
    known = recorded if isinstance(recorded, dict) else {}
    device = trainer.strategy.root_device
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "ranks": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
    }
    write_json(run.provenance, known | {"machine": of_machine() | facts})
