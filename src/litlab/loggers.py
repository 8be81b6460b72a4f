"""Loggers of a run: metrics.csv, if anything is logged, TensorBoard, pictures as files, W&B and MLflow.

A logger may have these methods besides those of Lightning's `Logger`, all called on rank zero alone:

- `log_config(config, is_new)`: the frozen config, in which secrets are references, whenever the run starts or resumes.
  Without it, `log_hyperparams` gets the config once.
- `log_picture(tag, picture, step, legend)`: a picture of litlab's callbacks (`litlab.callbacks.images.log_image`).
- `log_result(result)`: the result of a run that has completed or diverged, after the last value.
"""

import fcntl
import os
import re
import secrets
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from litlab.config.config_file import to_yaml
from litlab.config.tree import Config, flatten, format_value
from litlab.errors import UserError
from litlab.process.ranks import global_rank
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.metrics import Metric, MetricsWriter
from litlab.runs.redact import redact, redact_all
from litlab.runs.result import Result
from litlab.runs.state import RunStatus
from litlab.tasks.logged_metrics import logged_metrics, recorded_names
from litlab.tensorboard_session import final_metrics

_NOT_IN_MLFLOW = re.compile(r"[^\w\-. :/]", re.ASCII)  # characters that a key of MLflow must not have


class FileLogger(Logger):
    """Base of loggers that write into the run directory.

    Attributes:
        experiment: Stands for the `SummaryWriter` or the like of other loggers; calls of its methods do nothing.
    """

    version = ""  # a run has one of each

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run
        self.experiment: Any = _DummyExperiment()

    @property
    def save_dir(self) -> str:
        """The run directory, which is `trainer.log_dir`, too."""
        return str(self._run.path)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config is in config.yaml."""


class MetricsLogger(FileLogger):
    """Append all logged values to metrics.csv, and their units and directions to metrics.json, on rank zero.

    The step of a row is the number of optimizer steps taken so far. Lightning's own count, which it uses for values
    that a LightningModule logs by `self.log`, is one lower during training, and differs with several optimizers. For
    the names see `litlab.tasks.logged_metrics`.

    Args:
        run: Directory of the run.
        objective: Metric of the objective; None without one.
    """

    name = "metrics"

    def __init__(self, run: RunDirectory, objective: str | None = None) -> None:
        super().__init__(run)
        self._objective = objective
        self._trainer: Trainer | None = None
        self._writer: MetricsWriter | None = None
        self._names: set[str] = set()  # logged so far

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Take the Trainer from the module; Lightning calls this before a fit or test starts."""
        if isinstance(model, LightningModule):
            self._trainer = model.trainer

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row for each value.

        Args:
            metrics: Value by name; `epoch` is a column of the other rows.
            step: Step to write without a Trainer; with one, its number of optimizer steps is written.
        """
        values = dict(metrics)
        epoch = int(values.pop("epoch", self._trainer.current_epoch if self._trainer else 0))
        if self._trainer is not None:
            step = self._trainer.global_step
            names = recorded_names(self._trainer, values, self._objective)
            values = {new: values[name] for name, new in names.items()}
        self._writer = self._writer or MetricsWriter(self._run.metrics)
        self._writer.append(epoch, step or 0, values, self._infos(values))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _infos(self, values: dict[str, float]) -> dict[str, Metric]:
        """Find unit, direction and bounds of the metrics that are logged for the first time."""
        if self._trainer is None or values.keys() <= self._names:
            return {}
        new, self._names = values.keys() - self._names, self._names | values.keys()
        return {name: info for name, info in logged_metrics(self._trainer).items() if name in new}


class CSV(FileLogger):
    """No more than metrics.csv, which every run has that logs anything, and the pictures as `pictures/TAG.png`."""

    name = "csv"

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(RunDirectory(Path(save_dir)))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Do nothing: `MetricsLogger` writes them."""

    @rank_zero_only
    def log_picture(self, tag: str, picture: NDArray[np.uint8], step: int, legend: str) -> None:
        """Write a picture, `h w 3`, in place of the one before, and its legend beside it."""
        file = self._run.path / "pictures" / f"{tag}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
        if legend:
            file.with_suffix(".txt").write_text(legend, encoding="utf-8")


class TensorBoard(TensorBoardLogger):
    """Event files in the run directory itself, and nothing else: the config is in config.yaml."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        """Keep the hyperparameters that a user's own class saves, without the secrets among them.

        Metrics are logged like any others: Lightning's session for the HParams page would hide litlab's, and marks
        every run as successful.
        """
        super().log_hyperparams(redact_all(_as_dict(params)))
        if metrics:
            self.log_metrics(metrics, step)

    @rank_zero_only
    def log_config(self, config: Config, *, is_new: bool) -> None:
        """Show the config as a text; a resumed run shows it already."""
        if is_new:
            indented = "".join(f"    {line}\n" for line in to_yaml(config).splitlines())  # a code block in Markdown
            self.experiment.add_text("config", indented, 0)

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the file open after a fit, for the test: closed, it would be followed by a second one."""
        if status == "success":
            self.save()
        else:
            super().finalize(status)

    @rank_zero_only
    def log_result(self, result: Result) -> None:
        """Close the event file after the last value: the results are in a file of their own."""
        super().finalize("closed")


class WandB(WandbLogger):
    """Run in Weights & Biases with the config, all metrics, pictures and the result; resumed under the same id.

    Its name is that of the run directory, its group that of the folder around it: the study of a multirun. W&B gets
    neither the console output nor the code.

    Args:
        save_dir: Run directory, in which W&B keeps its own files.
        project: Project in W&B.
        entity: User or team; None for the default of the account.
        offline: Write files alone, for `wandb sync DIR/wandb/offline-*`.
        tags: Tags of the run.
    """

    def __init__(self, *, save_dir: str, project: str, entity: str | None, offline: bool, tags: Sequence[str]) -> None:
        run = RunDirectory(Path(save_dir))
        super().__init__(
            name=run.path.name,
            group=run.path.parent.name,
            save_dir=save_dir,
            id=_recorded_id(run, "wandb", lambda: secrets.token_hex(4)) if global_rank() == 0 else None,
            project=project,
            entity=entity,
            offline=offline,
            tags=list(tags),
            settings={"console": "off", "silent": True, "symlink": False, "save_code": False},
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it always, and wandb warns of it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`. The first access starts the run in W&B, or resumes it.

        Raises:
            UserError: W&B refuses the run, or can't be reached.
        """
        if self._experiment is not None:
            return self._experiment
        from wandb.errors import Error  # type: ignore[import-not-found,unused-ignore]

        try:
            return super().experiment
        except Error as error:
            raise UserError(
                f"logger: W&B can't be used: {error}; call `wandb login`, set WANDB_API_KEY, or set "
                "logger.wandb.offline=true"
            ) from error

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Add the hyperparameters that a user's own class saves as `hparams`, without the secrets among them."""
        super().log_hyperparams({"hparams": redact_all(_as_dict(params))})

    @rank_zero_only
    def log_config(self, config: Config, *, is_new: bool) -> None:
        """Set the config of the run."""
        self.experiment.config.update(config, allow_val_change=True)

    @rank_zero_only
    def log_picture(self, tag: str, picture: NDArray[np.uint8], step: int, legend: str) -> None:
        """Log a picture, `h w 3`."""
        self.log_image(tag, [picture], step, caption=[legend or None])

    @rank_zero_only
    def log_result(self, result: Result) -> None:
        """Add the result to the summary, and end the run."""
        self.experiment.summary.update(final_metrics(result) | _result_facts(result))
        self.experiment.finish(exit_code=int(result.status is not RunStatus.COMPLETED))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End a run that failed or was stopped; after a fit the test follows."""
        if status == "failed" and self._experiment is not None:
            self.experiment.finish(exit_code=1)


class MLflow(MLFlowLogger):
    """Run in MLflow with the config, all metrics, pictures and the result; a resumed run continues the same one.

    Args:
        save_dir: Run directory, whose name is that of the run.
        experiment: Experiment in MLflow.
        tracking_uri: Address of the server or store; None for that in MLFLOW_TRACKING_URI, or without one for
            mlflow.db in the project's folder, which `mlflow ui` opens there.
        tags: Tags of the run.
    """

    def __init__(self, *, save_dir: str, experiment: str, tracking_uri: str | None, tags: Mapping[str, str]) -> None:
        self._directory = RunDirectory(Path(save_dir))
        self._is_ready = False
        self._project = project = self._directory.project().absolute()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        try:
            with _locked(project):  # two jobs must not create the database at once
                super().__init__(
                    experiment_name=experiment,
                    run_name=self._directory.path.name,
                    tracking_uri=uri or f"sqlite:///{project / 'mlflow.db'}",
                    artifact_location=None if uri else (project / "mlartifacts").as_uri(),
                    tags=dict(tags),
                    run_id=_recorded_id(self._directory, "mlflow"),
                )
        except ImportError:
            raise
        except Exception as error:  # by MLflow or its database
            raise UserError(
                f"logger: MLflow can't use tracking_uri={redact(str(uri))}: {redact(str(error))}"
            ) from error

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `mlflow.MlflowClient`. The first access starts the run in MLflow, or resumes it.

        Raises:
            UserError: MLflow does not have the run that was started before.
        """
        if self._is_ready:
            return self._mlflow_client
        from mlflow.exceptions import MlflowException  # type: ignore[import-not-found,unused-ignore]

        resumed = self._run_id
        try:
            with _locked(self._project):  # two jobs must not create the experiment at once
                client = super().experiment
        except MlflowException as error:
            place = redact(f"logger: MLflow at {self._tracking_uri}")
            if resumed is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise UserError(f"{place} can't be used: {redact(error.message)}") from error
            raise UserError(
                f"{place} has no run {resumed}, which {self._directory.loggers} names: "
                "set MLFLOW_TRACKING_URI to the store that has it, or remove that file to log to a new one"
            ) from error
        self._is_ready = True
        if resumed is None:
            _record_id(self._directory, "mlflow", self._run_id)
        else:
            client.update_run(resumed, status="RUNNING")
        return client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Add the hyperparameters that a user's own class saves, without the secrets among them."""
        self._log_params(flatten({"hparams": redact_all(_as_dict(params))}))

    @rank_zero_only
    def log_config(self, config: Config, *, is_new: bool) -> None:
        """Log the config as parameters, such as `optimizer.lr`, and as config.yaml."""
        self._log_params(flatten(config))
        self.experiment.log_text(self.run_id, to_yaml(config), "config.yaml")

    @rank_zero_only
    def log_picture(self, tag: str, picture: NDArray[np.uint8], step: int, legend: str) -> None:
        """Log a picture, `h w 3`, as an artifact in place of the one before, and its legend beside it."""
        self.experiment.log_image(self.run_id, picture, f"{tag}.png")
        if legend:
            self.experiment.log_text(self.run_id, legend, f"{tag}.txt")

    @rank_zero_only
    def log_result(self, result: Result) -> None:
        """Log the result as metrics and tags, and end the run."""
        self.log_metrics(final_metrics(result), result.steps)
        for key, value in _result_facts(result).items():
            self.experiment.set_tag(self.run_id, key, format_value(value))
        self._terminate("FINISHED" if result.status is RunStatus.COMPLETED else "FAILED")

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End a run that failed or was stopped; after a fit the test follows."""
        if status == "failed" and self._is_ready:
            self._terminate("FAILED")

    def _terminate(self, status: str) -> None:
        self.experiment.set_terminated(self.run_id, status)

    def _log_params(self, values: dict[str, Any]) -> None:
        """Log parameters that the run does not have yet, since MLflow refuses to change one."""
        params = {_NOT_IN_MLFLOW.sub("_", key): format_value(value) for key, value in values.items()}
        logged = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in params.items() if key not in logged})


def log_config(loggers: Iterable[Logger], config: Config, *, is_new: bool) -> None:
    """Log a frozen config to all loggers, on rank zero, at the start of a run that is new or resumed."""
    for logger in loggers:
        if log := getattr(logger, "log_config", None):
            log(config, is_new=is_new)
        elif is_new:
            logger.log_hyperparams(config)


def log_result(loggers: Iterable[Logger], result: Result) -> None:
    """Log the result to all loggers that take it, on rank zero."""
    for logger in loggers:
        if log := getattr(logger, "log_result", None):
            log(result)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time enter, as far as the file system of the folder has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _as_dict(params: dict[str, Any] | Namespace) -> dict[str, Any]:
    return vars(params) if isinstance(params, Namespace) else dict(params)


def _result_facts(result: Result) -> dict[str, Any]:
    """Return what a result says besides its metrics, without what is null."""
    facts: dict[str, Any] = {"status": result.status.value, "error": result.error, "identity": result.identity}
    facts |= {"data": result.data, "parameters": result.parameters, "training_seconds": result.seconds.get("training")}
    return {f"result/{key}": value for key, value in facts.items() if value is not None}


def _recorded_id(run: RunDirectory, service: str, new: Callable[[], str] | None = None) -> str | None:
    """Return the id of the run in a service, as its first start recorded it; else record a new one, or return None."""
    recorded = run.read_mapping(run.loggers).get(service)
    if isinstance(recorded, str):
        return recorded
    if new is None:
        return None
    _record_id(run, service, new())
    return _recorded_id(run, service)


def _record_id(run: RunDirectory, service: str, value: str | None) -> None:
    write_json(run.loggers, run.read_mapping(run.loggers) | {service: value})
