"""Run directory opened for use after training: its config, checkpoints and dataset info, without torch."""

from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pydantic import ValidationError

from litlab.config.secrets import resolve_secrets
from litlab.config.tree import Config
from litlab.config.trust import Trust, open_config
from litlab.data.dataset_info import DatasetInfo
from litlab.errors import UserError
from litlab.process.failure import resume_command
from litlab.runs.directory import CHECKPOINTS, RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus

# Builders of the same network that download nothing, since the weights come from the checkpoint.
_WITHOUT_WEIGHTS = {
    f"litlab.models.{module}.build": f"litlab.models.{module}.build_untrained" for module in ("torchvision", "timm")
}


@dataclass(frozen=True)
class FinishedRun:
    """Run directory that has been opened.

    Attributes:
        run: Run directory.
        config: Frozen config, in which secrets are still references.
        trust: Permissions of the run.
    """

    run: RunDirectory
    config: Config
    trust: Trust

    @classmethod
    def open(
        cls, directory: str | PathLike[str], allow: Iterable[str] = (), parts: Collection[str] | None = None
    ) -> "FinishedRun":
        """Open a run directory and make the classes of its project importable.

        Args:
            directory: Run directory.
            allow: Names that the user allows to an untrusted run.
            parts: Keys of the config that something will be built from; None for all.

        Raises:
            UserError: If there is no run, its config is damaged or of another version of litlab, or an untrusted run
                names classes in these parts that are not allowed.
        """
        run = RunDirectory.existing(Path(directory))
        config, trust = open_config(run, allow)
        trust.check_names(config, parts)
        trust.make_importable()
        return cls(run, config, trust)

    @property
    def own(self) -> bool:
        """Trust of the run: True if the user signed it."""
        return self.trust.own

    def select_settings(self, *keys: str) -> Config:
        """Select the parts of the config to build from, with a network that downloads no weights.

        Secrets replace their references. An untrusted run gets no secrets; the classes that it names are imported and
        checked.

        Args:
            *keys: Keys of the config.

        Raises:
            UserError: If the environment lacks a secret, or an untrusted run names a class that is not allowed.
        """
        settings = {key: self.config[key] for key in keys}
        if self.own:
            settings = resolve_secrets(settings)
        else:
            settings = deepcopy(settings)
            self.trust.check_imports(settings)
            settings = self.trust.with_own_caches(settings)
        if model := settings.get("model"):
            model["_target_"] = _WITHOUT_WEIGHTS.get(model["_target_"], model["_target_"])
        return settings

    def evaluation_transforms(self) -> list[Config]:
        """Return the nodes of `data.transforms.eval`, checked and completed as by `select_settings`.

        Raises:
            UserError: If there are none, although dataset.json says so.
        """
        transforms = as_mapping(as_mapping(self.config["data"]).get("transforms")).get("eval")
        if not isinstance(transforms, list):
            raise UserError(f"{self.run.dataset} is damaged: it tells of transforms, but config.yaml has none")
        settings: Config = {"data": {"transforms": {"eval": transforms}}}
        if self.own:
            settings = resolve_secrets(settings)
        else:
            self.trust.check_imports(settings)
        nodes: list[Config] = settings["data"]["transforms"]["eval"]
        return nodes

    def find_checkpoint(self, name: str | None) -> Path:
        """Find a checkpoint file.

        Args:
            name: "best" or "last"; None for the best if there is one, else the last.

        Raises:
            UserError: If there is no such checkpoint, with the reason as far as the run directory tells.
        """
        if name not in (None, *CHECKPOINTS):
            raise UserError(
                f"checkpoint={name!r}: there is no such checkpoint; expected one of {', '.join(CHECKPOINTS)}"
            )
        best, last = self.run.best, self.run.last
        path = {"best": best, "last": last}[name or ("best" if best.is_file() else "last")]
        if path.is_file():
            return path
        if path == best and last.is_file():
            raise UserError(
                f"{self.run.path} has no best checkpoint: it had no objective or no validation; take the last one"
            )
        reason = "it has not completed its first epoch, or is not finished; wait for it, or train again"
        if self.run.result.exists():
            result = read_result(self.run)
            status = result.get("status")
            was = "was " if status in (RunStatus.INTERRUPTED, RunStatus.PRUNED, RunStatus.REFUSED) else ""
            reason = f"it {was}{status}: {result.get('error') or 'the file was removed'}"
            if status == RunStatus.INTERRUPTED:
                reason += f"; to continue: {resume_command(self.run)}"
        raise UserError(f"{self.run.path} has no checkpoint {path.name}: {reason}")

    def dataset_info(self) -> DatasetInfo:
        """Read dataset.json.

        Raises:
            UserError: If dataset.json is missing or damaged.
        """
        file = self.run.dataset
        if not file.exists() and self.run.last.is_file():
            source = (self.config["data"] or self.config["task"])["_target_"]  # the task may have the loaders
            raise UserError(
                f"{file} is missing: the run was on {source}, which does not describe its "
                "data, so class names and preprocessing are unknown; only `litlab evaluate` can be used here"
            )
        try:
            return DatasetInfo.from_dict(self.run.read_json(file))
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
            raise UserError(f"{file} is damaged: it does not describe a data set ({problem})") from error
