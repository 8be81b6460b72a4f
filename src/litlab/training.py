"""Trains one experiment in this process: fit, test, result. A rank of several does the same as the only one."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from litlab.callbacks.config_text import ConfigText
from litlab.callbacks.console import Console
from litlab.callbacks.last_checkpoint import LastCheckpoint
from litlab.callbacks.stop import StopOnRequest
from litlab.callbacks.timing import Timing
from litlab.config.freeze import to_yaml
from litlab.config.identity import identity
from litlab.config.secrets import with_secrets
from litlab.experiment import Experiment, assemble, build_callbacks, build_loggers, build_trainer
from litlab.loggers import MetricsLogger
from litlab.ranks import global_rank, machines, ranks_here
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.metrics import at_best, read_metrics
from litlab.runs.provenance import of_machine
from litlab.runs.result import Result, write_result
from litlab.signals import StopRequest

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


def train(run: RunDirectory, frozen: Config, stop: StopRequest, *, started: float) -> None:
    """Train and test the experiment of a run directory, and write its result.

    `frozen` goes into files; objects are built from a copy with the secrets in it, which goes nowhere else.

    Raises:
        Stopped: if the process was asked to stop.
        UserError: for what the config or the data get wrong.
    """
    clock = Clock({}, started)
    clock.ends("import")
    rank, config = global_rank(), with_secrets(frozen)
    experiment = assemble(config, rank=rank)
    if rank == 0 and experiment.facts is not None:
        write_json(run.dataset, experiment.facts.to_dict())
    clock.ends("data_and_network")
    timing, best = Timing(), _best_checkpoint(config, run, experiment)
    console = Console(run=run, name=config["name"], seed=config["seed"])
    ours: list[Callback] = [StopOnRequest(stop, path=run.last), timing, console, ConfigText(to_yaml(frozen))]
    ours.append(LastCheckpoint(path=run.last, every_steps=config["checkpoint"]["every_steps"]))
    trainer = build_trainer(
        config | {"trainer": config["trainer"] | {"num_nodes": machines()}},
        run,
        experiment.facts,
        devices=_devices(config),
        callbacks=ours + build_callbacks(config, experiment.facts) + ([best] if best else []),
        loggers=[MetricsLogger(run), *build_loggers(config, run)],
    )
    if rank == 0:
        _write_machine(run, trainer)
    clock.ends("trainer")
    with stop.deferred():
        trainer.fit(experiment.task, datamodule=experiment.data)
        last, fitted = _numbers(trainer.callback_metrics), (trainer.current_epoch, trainer.global_step)
        clock.ends("fit")
        trainer.test(experiment.task, datamodule=experiment.data, ckpt_path=str(_to_test(run, best)), verbose=False)
        clock.ends("test")
    if rank == 0:
        result = _result(run, frozen, experiment, last, _numbers(trainer.callback_metrics), fitted, clock, timing)
        write_result(run, result)
        console.table(result)


def _result(
    run: RunDirectory,
    config: Config,
    experiment: Experiment,
    last: dict[str, float],
    test: dict[str, float],
    fitted: tuple[int, int],
    clock: Clock,
    timing: Timing,
) -> Result:
    objective = config["objective"]
    best = at_best(read_metrics(run.metrics), **objective) if objective else {}
    network = experiment.network or experiment.task
    return Result(
        status="completed",
        identity=identity(config),
        objective=best.get(objective["metric"]) if objective else None,
        best=best,
        last={name: value for name, value in last.items() if not name.startswith("train/")},
        test=test,
        epochs=fitted[0],
        steps=fitted[1],
        data=experiment.facts.fingerprint if experiment.facts else None,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=clock.seconds | {"training": round(timing.clock.seconds, 3)},
        images_per_second=timing.clock.images_per_second,
    )


def _best_checkpoint(config: Config, run: RunDirectory, experiment: Experiment) -> ModelCheckpoint | None:
    """Keeps the best by the objective; None without an objective or without validation images."""
    if not config["objective"] or (experiment.facts is not None and experiment.facts.num_val == 0):
        return None
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=run.best.stem,
        monitor=config["objective"]["metric"],
        mode=config["objective"]["mode"],
        enable_version_counter=False,
    )


def _to_test(run: RunDirectory, best: ModelCheckpoint | None) -> Path:
    return Path(best.best_model_path) if best and best.best_model_path else run.last


def _devices(config: Config) -> int | list[int]:
    devices = config["trainer"]["devices"]
    if isinstance(devices, list):
        return devices
    return ranks_here()


def _numbers(values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _write_machine(run: RunDirectory, trainer: Trainer) -> None:
    """Complete provenance.json with what only the worker knows."""
    known = run.read_json(run.provenance) if run.provenance.exists() else {}
    device = trainer.strategy.root_device
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "ranks": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
    }
    write_json(run.provenance, known | {"machine": of_machine() | facts})
