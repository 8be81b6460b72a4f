"""Composes many jobs quickly: each choice of configs is composed once, by Hydra; single keys are set in copies of it.

Hydra itself reads and merges all files again for each job, which takes ten times as long. The result is the same:
tests/config/test_jobs.py compares them.
"""

from collections.abc import Sequence
from copy import deepcopy

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict


class Composer:
    """Stands for `loader.load_sweep_config(master, ...)` as long as the files stay as they are."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._can_copy = (
            isinstance(loader, ConfigLoaderImpl) and not master.hydra.searchpath
        )  # which may hold more groups
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._stems: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config of one job, Hydra's part included.

        Raises:
            HydraException, OmegaConfBaseException: as Hydra does.
        """
        parsed = [self._parse(each) for each in overrides]
        if not self._can_copy or any(each.is_sweep_override() or each.is_hydra_override() for each in parsed):
            return self._loader.load_sweep_config(self._master, list(overrides))
        choices = tuple(line for line, each in zip(overrides, parsed, strict=True) if self._is_choice(each))
        if choices not in self._stems:
            self._stems[choices] = self._loader.load_sweep_config(self._master, list(choices))
        composed = deepcopy(self._stems[choices])
        ConfigLoaderImpl._apply_overrides_to_config([each for each in parsed if not self._is_choice(each)], composed)
        self._describe(composed, parsed)
        return composed

    def _parse(self, line: str) -> Override:
        if line not in self._parsed:
            (self._parsed[line],) = self._parser.parse_overrides([line])
        return self._parsed[line]

    def _is_choice(self, override: Override) -> bool:
        """Whether Hydra takes it for the choice of a config; a dict sets keys of a group."""
        assert isinstance(self._loader, ConfigLoaderImpl)
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = self._loader.repository.group_exists(key)
        return self._groups[key] and not isinstance(override.value(), dict)

    def _describe(self, composed: DictConfig, overrides: list[Override]) -> None:
        """What Hydra notes of the overrides in its own keys."""
        job = composed.hydra.job
        with open_dict(composed.hydra):
            composed.hydra.overrides.task = [each.input_line for each in overrides]
            job.override_dirname = get_overrides_dirname(
                overrides=overrides,
                kv_sep=job.config.override_dirname.kv_sep,
                item_sep=job.config.override_dirname.item_sep,
                exclude_keys=list(job.config.override_dirname.exclude_keys),
            )
        OmegaConf.copy_cache(from_config=self._master, to_config=composed)
