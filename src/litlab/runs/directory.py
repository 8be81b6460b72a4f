"""The directory of a run: its files, how it is claimed, how its records are read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.runs.files import as_mapping, check_locks, open_regular, remove_if_empty, write_text

FORMAT = 2  # of config.yaml; run directories of another one are refused
CHECKPOINTS = ("best", "last")  # names on the command line


@dataclass(frozen=True)
class _Entry:
    """Descriptor: the path of a file in the directory."""

    name: str

    def __get__(self, run: "RunDirectory", owner: type) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDirectory:
    """Directory of one run; docs/run_directory.md describes its files.

    Attributes:
        path: Path of the directory.
    """

    path: Path

    config = _Entry("config.yaml")  # frozen
    dataset = _Entry("dataset.json")  # facts about the data set
    provenance = _Entry("provenance.json")  # command, code and machine
    metrics = _Entry("metrics.csv")  # rows of logged values
    metric_table = _Entry("metrics.json")  # unit and direction of each metric
    heartbeat = _Entry(".heartbeat")  # sign of life of the worker
    loggers = _Entry("loggers.json")  # ids of the run in W&B and MLflow
    log = _Entry("run.log")  # of the worker
    result = _Entry("result.json")  # of a run that has ended
    initial_weights = _Entry("initial_weights")  # copy of what `init_from` named
    checkpoints = _Entry("checkpoints")
    best = _Entry("checkpoints/best.ckpt")  # with the best objective
    last = _Entry("checkpoints/last.ckpt")  # the newest
    previous = _Entry("checkpoints/previous.ckpt")  # the one before the newest

    @classmethod
    def create(cls, path: Path, config: str, hydra: dict[str, str], *, sync: bool = True) -> "RunDirectory":
        """Claim a new or empty directory for a run; write its frozen config and Hydra's record of it.

        Args:
            path: Directory.
            config: Text of config.yaml.
            hydra: Text of each file in `.hydra/` by name.
            sync: False if the caller syncs the files of many runs at once.

        Raises:
            UserError: If the directory is not empty.
            OSError: If nothing can be written or locked there.
        """
        run = cls(path)
        run.refuse_if_taken()
        path.mkdir(parents=True, exist_ok=True)
        try:
            check_locks(path)
        except OSError:
            remove_if_empty(path)
            raise
        try:
            (path / ".hydra").mkdir()  # atomic: of two that start here, one gets it
        except FileExistsError as error:
            raise UserError(f"{path} was just taken by another run; choose another directory") from error
        for name, text in hydra.items():
            write_text(path / ".hydra" / name, text, sync=sync)
        write_text(run.config, config, sync=sync)
        return run

    def refuse_if_taken(self) -> None:
        """Check that the path is free, or an empty directory.

        Raises:
            UserError: If it is not.
        """
        if self.config.exists():
            raise UserError(
                f"{self.path} is the directory of an existing run, which is never overwritten; "
                f"choose another hydra.run.dir, or remove that one first"
            )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is not empty; a run starts in a directory of its own: choose another hydra.run.dir"
            )

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """Open the directory of an existing run.

        Raises:
            UserError: If there is no run in it.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            reason = "has no config.yaml" if run.path.is_dir() else "does not exist"
            raise UserError(f"{path}: no run directory: it {reason}; expected outputs/<experiment>/<date>_<time>_<id>")
        return run

    def project(self) -> Path:
        """Return the folder in which `litlab train` was called if it still exists, else the working directory."""
        project = self.read_mapping(self.provenance).get("project")  # a bare worker records none
        return Path(project) if project and Path(project).is_dir() else Path.cwd()

    def snapshot(self) -> Path | None:
        """Return the copy of the project's sources that this run uses; None if it uses the project itself."""
        relative = self.read_mapping(self.provenance).get("snapshot")
        return (self.path / relative).resolve() if isinstance(relative, str) else None

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml without checking its keys: enough to show a run, not to start it.

        Raises:
            UserError: If it is missing, damaged or of another format.
        """
        import yaml  # here, since it is slow to import

        from litlab.runs.safe_yaml import load_yaml

        try:
            with open_regular(self.config) as file:
                config = load_yaml(file.read())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{self.config} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is damaged: it is no mapping of keys to values")
        if type(config.get("format")) is int and config["format"] != FORMAT:
            raise UserError(
                f"{self.config}: its format is {config['format']!r}: this version of litlab reads format {FORMAT} only"
            )
        return config

    def read_json(self, file: Path) -> Any:
        """Read a JSON file of the run.

        Raises:
            UserError: If it is missing or damaged.
        """
        try:
            with open_regular(file) as opened:
                return json.loads(opened.read().decode())
        except FileNotFoundError as error:
            raise UserError(f"{file} is missing: the run in {self.path} has not written it yet") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged: {error}") from error

    def read_mapping(self, file: Path) -> dict[str, Any]:
        """Read a JSON file of the run that holds a mapping; empty if it is missing or holds something else.

        Raises:
            UserError: If it is damaged.
        """
        return as_mapping(self.read_json(file)) if file.exists() else {}
