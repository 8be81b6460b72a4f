"""The run directory: which file is where, and how one is made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.runs.files import open_regular, write_text

FORMAT = 2  # of config.yaml; run directories of another one are refused
CHECKPOINTS = ("best", "last")  # that can be asked for


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; docs/architecture.md says what is in each."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def metric_table(self) -> Path:
        return self.path / "metrics.json"

    @property
    def heartbeat(self) -> Path:
        return self.path / ".heartbeat"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        return self.checkpoints / "previous.ckpt"

    @classmethod
    def create(cls, path: Path, config: str, hydra: dict[str, str], *, sync: bool = True) -> "RunDirectory":
        """Claim a new or empty directory for a run, with its frozen config and Hydra's own record of it.

        Args:
            path: where.
            config: the text of config.yaml.
            hydra: file name -> text, for `.hydra/`.
            sync: False if the caller syncs the files of many runs at once.

        Raises:
            UserError: if the directory holds anything already.
        """
        run = cls(path)
        run.refuse_if_taken()
        path.mkdir(parents=True, exist_ok=True)
        try:
            (path / ".hydra").mkdir()  # atomic: of two that start here, one gets it
        except FileExistsError as error:
            raise UserError(f"{path} was taken by another run a moment ago; choose another directory") from error
        for name, text in hydra.items():
            write_text(path / ".hydra" / name, text, sync=sync)
        write_text(run.config, config, sync=sync)
        return run

    def refuse_if_taken(self) -> None:
        """
        Raises:
            UserError: if the path is a file, or a directory that holds anything.
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
        """
        Raises:
            UserError: if there is no run in the directory.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            what = "has no config.yaml" if run.path.is_dir() else "does not exist"
            raise UserError(f"{path}: no run directory: it {what}; expected outputs/<experiment>/<date>_<time>_<id>")
        return run

    def project(self) -> Path:
        """The folder that `litlab train` was called in, if it is still there; else the current one."""
        known = self.read_json(self.provenance) if self.provenance.exists() else {}
        project = known.get("project") if isinstance(known, dict) else None  # a bare worker records none
        return Path(project) if project and Path(project).is_dir() else Path.cwd()

    def read_config(self) -> dict[str, Any]:
        """config.yaml, unchecked, with keys that came later switched off: enough to look at a run, not to start it.

        Raises:
            UserError: if it is missing or damaged.
        """
        import yaml  # here, since hardly anybody who knows a run directory reads this

        from litlab.runs.safe_yaml import load_yaml

        try:
            with open_regular(self.config) as file:
                found = load_yaml(file.read())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{self.config} is damaged: {error}") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.config} is damaged: it is no mapping of keys to values")
        if type(found.get("format")) is int and found["format"] != FORMAT:
            raise UserError(
                f"{self.config}: its format is {found['format']!r}: this version of litlab reads format {FORMAT} only"
            )
        return found

    def read_json(self, file: Path) -> Any:
        """
        Raises:
            UserError: if the file is missing or damaged.
        """
        try:
            with open_regular(file) as opened:
                return json.loads(opened.read().decode())
        except FileNotFoundError as error:
            raise UserError(f"{file} is missing: the run in {self.path} did not get that far") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged: {error}") from error
