"""Files of studies with values that a test chooses, written in milliseconds."""

import copy
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import special, stats

from litlab.config.identity import identity
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, MetricsWriter
from litlab.runs.result import Result, write_result
from litlab.runs.signature import sign_study
from litlab.runs.state import RunStatus
from litlab.sweep.study import JobRecord, Plan

# The config of `litlab train data=shapes`, without keys that no test of compare needs.
CONFIG: dict[str, Any] = {
    "format": 2,
    "name": "shapes_cnn",
    "seed": 0,
    "threads": 1,
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "checkpoint": {"every_steps": 1000, "every_minutes": 10},
    "study": {"name": None, "swept": []},
    "data": {"_target_": "litlab.data.shapes.Shapes", "batch_size": 16, "seed": 0, "flip": True},
    "model": {"_target_": "litlab.models.cnn.CNN", "widths": [2, 4], "hidden": [8]},
    "task": {"_target_": "litlab.tasks.image_classifier.ImageClassifier", "label_smoothing": 0.0},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9},
    "logger": {"tensorboard": {"_target_": "litlab.loggers.TensorBoard"}},
    "trainer": {"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "devices": 1, "max_epochs": 2},
}

METRICS = {f"{split}/accuracy": Metric(f"{split}/accuracy", "%", "max", (0.0, 1.0)) for split in ("val", "test")}
METRICS |= {f"{split}/loss": Metric(f"{split}/loss", "", "min") for split in ("train", "val", "test")}
Curve = Callable[[int], float]  # epoch, from 0 -> validation accuracy after it


def config_with(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return CONFIG with values at dotted keys; `data.seed` follows `seed`, as in the configs of litlab."""
    config = copy.deepcopy(CONFIG)
    for key, value in values.items():
        *parents, last = key.split(".")
        node = config
        for name in parents:
            node = node[name]
        node[last] = value
    config["data"]["seed"] = config["seed"]
    return config


def accuracy_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy: Student's t on the logit scale by the delta method."""
    mean = float(np.mean(values))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) / (mean * (1 - mean))
    low, high = special.expit(special.logit(mean) + np.array([-half, half]))
    return float(low), float(high)


def make_run(
    path: Path,
    values: Mapping[str, Any],
    accuracy: float,
    *,
    swept: Sequence[str] = (),
    status: str = "completed",
    test_accuracy: float | None = None,
    num_epochs: int = 2,
    curve: Curve | None = None,
    rows_per_epoch: int = 3,
    **fields: Any,
) -> RunDirectory:
    """Write a run directory with config.yaml, metrics.csv, metrics.json and result.json.

    Args:
        path: Run directory.
        values: Dotted key -> value, on top of CONFIG.
        accuracy: Best and last validation accuracy, if there is no `curve`.
        swept: Keys that the study sweeps.
        status: Value of a RunStatus.
        test_accuracy: Accuracy of the test; by default `accuracy`.
        num_epochs: Number of epochs.
        curve: Validation accuracy by epoch, which determines best and last.
        rows_per_epoch: Rows of the training loss in metrics.csv.
        fields: Other fields of `Result`.
    """
    config = config_with(values)
    config["study"]["swept"] = list(swept)
    config["trainer"]["max_epochs"] = num_epochs
    run = RunDirectory.create(path, yaml.dump(config, sort_keys=False), {}, sync=False)
    points = [curve(epoch) if curve else accuracy for epoch in range(num_epochs)]
    writer = MetricsWriter(run.metrics)
    for epoch, value in enumerate(points):
        for row in range(rows_per_epoch):
            writer.append(epoch, epoch * 10 + row * 3 + 1, {"train/loss": 2.0 / (epoch + row + 1), "lr": 0.1}, METRICS)
        writer.append(epoch, epoch * 10 + 10, {"val/loss": 2 * (1 - value), "val/accuracy": value}, METRICS)
        writer.append(epoch, epoch * 10 + 10, {"throughput/images_per_second": 1000.0 + epoch})
    writer.close()
    if status == "completed":
        best, last, tested = max(points), points[-1], accuracy if test_accuracy is None else test_accuracy
        outcome: dict[str, Any] = {
            "objective": best,
            "data": "d" * 64,
            "best": {"val/loss": 2 * (1 - best), "val/accuracy": best},
            "last": {"val/loss": 2 * (1 - last), "val/accuracy": last},
            "test": {"test/loss": 2 * (1 - tested), "test/accuracy": tested},
            "epochs": num_epochs,
            "steps": num_epochs * 10,
            "parameters": 1254,
            "seconds": {"import": 0.1, "fit": 6.0, "test": 1.0, "training": 5.0, "saving": 0.1},
            "images_per_second": 1000.0,
        }
    else:
        outcome = {"error": f"made to be {status}"}
    write_result(run, Result(**{"status": RunStatus(status), "identity": identity(config), **outcome, **fields}))
    return run


def make_study(
    path: Path,
    axes: Mapping[str, Sequence[Any]],
    accuracy: Callable[[dict[str, Any]], float],
    *,
    planned_seeds: list[int] | None = None,
    is_own: bool = True,
    **settings: Any,
) -> list[RunDirectory]:
    """Write a finished grid that nobody has looked at.

    Args:
        path: Directory of the study.
        axes: Swept keys with their values.
        accuracy: Called with a point, returns the accuracy of its job.
        planned_seeds: Planned numbers of seeds; by default that of the axis.
        is_own: Whether to sign it.
        settings: Arguments of `make_run`; a callable one is called with the point, `curve` with (point, epoch).
    """
    path.mkdir(parents=True)
    texts = {key: [as_text(value) for value in values] for key, values in axes.items()}
    runs, records = [], []
    for number, values in enumerate(itertools.product(*axes.values())):
        point = dict(zip(axes, values, strict=True))
        of_job = {
            name: partial(value, point) if name == "curve" else value(point) if callable(value) else value
            for name, value in settings.items()
        }
        name = f"{number:04d}_" + "_".join(f"{key.split('.')[-1]}-{as_text(value)}" for key, value in point.items())
        run = make_run(path / name, point, accuracy(point), swept=list(axes), **of_job)
        shown = {key: as_text(value) for key, value in point.items()}
        overrides = [f"{key}={value}" for key, value in shown.items()]
        records.append(JobRecord(number, name, identity(run.read_config()), overrides, shown))
        runs.append(run)
    planned = [len(axes.get("seed", [0]))] if planned_seeds is None else planned_seeds
    write_study(path, records, texts, planned, is_own=is_own)
    return runs


def write_study(
    path: Path,
    records: Sequence[JobRecord],
    axes: dict[str, list[str]],
    planned_seeds: list[int] | None,
    *,
    is_own: bool = True,
) -> None:
    """Write jobs.jsonl and study.yaml, signed if the study is to be the user's own."""
    started = "2026-11-23T10:00:00+00:00"
    num_jobs = len(records)
    plan = Plan("grid", axes, config_with({}), ["-m"], {}, {}, str(path.parent), started, num_jobs, planned_seeds)
    (path / "study.yaml").write_text(plan.to_yaml())
    (path / "jobs.jsonl").write_text("".join(record.to_line() for record in records))
    if is_own:
        sign_study(path, plan.to_yaml().encode())


def as_text(value: Any) -> str:
    """Return a value in Hydra's grammar."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | bool) or value is None else str(value)
