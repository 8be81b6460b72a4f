"""A run to be used after training, as its directory tells it: config, checkpoint, data. No torch."""

from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from litlab.config.config_file import from_yaml
from litlab.config.secrets import resolve_secrets
from litlab.config.trust import Trust
from litlab.config.validate import validate
from litlab.data.dataset_info import DatasetInfo
from litlab.errors import UserError
from litlab.runs.directory import CHECKPOINTS, RunDirectory
from litlab.runs.result import read_result

Config = dict[str, Any]
# Builds the same network, but fetches nothing: the weights come from the checkpoint.
_WITHOUT_WEIGHTS = {"litlab.models.torchvision.build": "litlab.models.torchvision.build_untrained"}


@dataclass(frozen=True)
class FinishedRun:
    """A run directory and its frozen config, in which secrets are still references."""

    run: RunDirectory
    config: Config
    trust: Trust

    @classmethod
    def open(
        cls, directory: str | PathLike[str], allow: Iterable[str] = (), parts: Collection[str] | None = None
    ) -> "FinishedRun":
        """Read a run directory, judge what it names, and make the classes of its project importable.

        Args:
            directory: where it is.
            allow: packages that a run of others may use.
            parts: keys of the config that something will be built from; None for all.

        Raises:
            UserError: if there is no run, its config is damaged or of a format that this version doesn't read, or it is
                not the user's own and names in these parts what such a run may not.
        """
        run = RunDirectory.existing(Path(directory))
        content = run.config.read_bytes()
        trust = Trust.of(run, content, allow)
        try:
            config = from_yaml(content.decode())
            validate(config)
        except ValueError as error:  # UserError, or bytes that are no UTF-8
            raise UserError(f"{run.config} is damaged or not of this version of litlab: {error}") from error
        trust.check_names(config, parts)
        trust.make_importable()
        return cls(run, config, trust)

    @property
    def own(self) -> bool:
        """Whether it is known as a run of the user's own."""
        return self.trust.own

    def settings(self, *keys: str) -> Config:
        """Parts of the config to build from, with secrets instead of references; a network that fetches no weights.

        What a run of others names there is imported (torch, if nothing else) and judged; it is given no secrets.

        Raises:
            UserError: if the environment lacks a secret, or for what a run of others may not name.
        """
        chosen = {key: self.config[key] for key in keys}
        settings = resolve_secrets(chosen) if self.own else self._judged(deepcopy(chosen))
        model = settings.get("model")
        if model:
            model["_target_"] = _WITHOUT_WEIGHTS.get(model["_target_"], model["_target_"])
        return settings

    def _judged(self, settings: Config) -> Config:
        self.trust.check_imports(settings)
        return self.trust.with_own_caches(settings)

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

    def dataset_info(self) -> DatasetInfo:
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
            return DatasetInfo.from_dict(self.run.read_json(file))
        except (TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged: it does not describe a data set ({error})") from error

    def _progress(self) -> str:
        if not self.run.result.exists():
            return "it has not completed its first epoch, or is not finished; wait for it, or train again"
        result = read_result(self.run)
        return f"it {result.get('status')}: {result.get('error') or 'the file was removed'}"
