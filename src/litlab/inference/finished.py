"""A run to be used after training, as its directory tells it: config, checkpoint, data. No torch."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from litlab.config.freeze import from_yaml
from litlab.config.location import add_project_to_path
from litlab.config.secrets import with_secrets
from litlab.config.validate import validate
from litlab.data.facts import DatasetFacts
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

Config = dict[str, Any]
CHECKPOINTS = ("best", "last")
# Builds the same network, but fetches nothing: the weights come from the checkpoint.
_WITHOUT_WEIGHTS = {"litlab.models.torchvision.build": "litlab.models.torchvision.build_untrained"}


@dataclass(frozen=True)
class FinishedRun:
    """A run directory and its frozen config, in which secrets are still references."""

    run: RunDirectory
    config: Config

    @classmethod
    def open(cls, directory: str | PathLike[str]) -> "FinishedRun":
        """Read a run directory, and make the classes of the project it was trained in importable.

        Raises:
            UserError: if there is no run, or its config is damaged or of a format that this version doesn't read.
        """
        run = RunDirectory.existing(Path(directory))
        try:
            config = from_yaml(run.config.read_text(encoding="utf-8"))
            validate(config)
        except ValueError as error:  # UserError, or bytes that are no UTF-8
            raise UserError(f"{run.config} is damaged or not of this version of litlab: {error}") from error
        add_project_to_path(run.project())
        return cls(run, config)

    def settings(self, *keys: str) -> Config:
        """Parts of the config, with secrets in place of their references; a network that fetches no weights.

        Raises:
            UserError: if the environment lacks a secret.
        """
        settings = with_secrets({key: self.config[key] for key in keys})
        model = settings.get("model")
        if model:
            model["_target_"] = _WITHOUT_WEIGHTS.get(model["_target_"], model["_target_"])
        return settings

    def checkpoint(self, which: str | None) -> Path:
        """The file of the best or last checkpoint; None for the best where there is one, else the last.

        Raises:
            UserError: if there is none, saying why as far as the run directory tells.
        """
        if which not in (None, *CHECKPOINTS):
            raise UserError(
                f"checkpoint={which!r}: there is no such checkpoint; expected one of {', '.join(CHECKPOINTS)}"
            )
        best, last = self.run.best, self.run.last
        path = {"best": best, "last": last}[which or ("best" if best.is_file() else "last")]
        if path.is_file():
            return path
        if path == best and last.is_file():
            raise UserError(
                f"{self.run.path} has no best checkpoint: it had no objective or no validation; take the last one"
            )
        raise UserError(f"{self.run.path} has no checkpoint {path.name}: {self._progress()}")

    def facts(self) -> DatasetFacts:
        """What the run knows of its data set.

        Raises:
            UserError: if dataset.json is missing or damaged.
        """
        file = self.run.dataset
        if not file.exists() and self.run.last.is_file():
            raise UserError(
                f"{file} is missing: the run was on {self.config['data']['_target_']}, which tells nothing about its "
                "data, so class names and preprocessing are not known; only `litlab evaluate` can be used here"
            )
        try:
            return DatasetFacts.from_dict(self.run.read_json(file))
        except (TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged: it does not hold the facts of a data set ({error})") from error

    def _progress(self) -> str:
        if not self.run.result.exists():
            return "it has not completed its first epoch, or is not finished; wait for it, or train again"
        result = read_result(self.run)
        return f"it {result.get('status')}: {result.get('error') or 'the file was removed'}"
