"""Composition of configs: litlab's resolvers for Hydra, names of job directories, and a fast composer of many jobs."""

import re
import runpy
import secrets
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from litlab.config.ablation_changes import ABLATION, variant_name
from litlab.config.hydra_errors import explain_hydra_error, parse_overrides
from litlab.config.paths import ROOT, VERSION_BASE, add_project_to_path, cache_root, packaged_conf
from litlab.config.tree import bare_key
from litlab.errors import UserError
from litlab.runs.terminal import display_path

_MAX_NAME = 120  # characters of the name of a job directory
_MANY_DIGITS = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")
_CACHE = "litlab.study"  # of OmegaConf, handed on by Hydra from the config of a multirun to those of its jobs
_RESOLVERS_MODULE = "litlab_project_resolvers"  # name of the user's file while it runs
_RUN_MODE = "hydra.mode=RUN"  # override that Hydra adds for a single run without a mode of its own
_MULTIRUN_FLAGS = {"-m", "--multirun"}
_RESOLVERS_OF_HYDRA = ("hydra", "now", "python_version")  # registered again each time that it starts


def register_resolvers() -> None:
    """Register the `${litlab.*:}` resolvers of conf/config.yaml and conf/data/."""
    OmegaConf.register_new_resolver("litlab.cache", lambda: str(cache_root()), replace=True)
    OmegaConf.register_new_resolver("litlab.id", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("litlab.name", _experiment_name, replace=True)
    OmegaConf.register_new_resolver("litlab.study", _study_directory, replace=True)
    OmegaConf.register_new_resolver("litlab.job", _job_directory, replace=True)


def register_project_resolvers(project: Path) -> None:
    """Register each function of `conf/resolvers.py` in the user's project as a resolver of its name, `${name:}`.

    The file may import packages of the project. Functions whose names begin with an underscore are its own.

    Raises:
        UserError: If importing it raises an error, or a function has the name of one of Hydra's resolvers.
    """
    file = project / "conf" / "resolvers.py"
    if not file.is_file():
        return
    add_project_to_path(project)
    try:
        names = runpy.run_path(str(file), run_name=_RESOLVERS_MODULE)
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"{display_path(file)}: importing it raised {type(error).__name__}: {error}") from error
    for name, function in names.items():
        is_own = getattr(function, "__module__", None) == _RESOLVERS_MODULE  # of a decorated function, too
        if not callable(function) or isinstance(function, type) or not is_own or name.startswith("_"):
            continue
        if name in _RESOLVERS_OF_HYDRA:
            raise UserError(
                f"{display_path(file)}: ${{{name}:}} is a resolver of Hydra; give the function another name"
            )
        OmegaConf.register_new_resolver(name, function, replace=True)


def record_swept_overrides(master: DictConfig) -> None:
    """Note in the config of a multirun which override keys it varies. Hydra hands this on to the jobs."""
    OmegaConf.get_cache(master)[_CACHE].setdefault("swept", _find_swept_overrides(master))


def swept_overrides(config: DictConfig) -> list[str]:
    """Return the override keys that a multirun varies, from its config or that of a job; none for a single run."""
    swept: list[str] = OmegaConf.get_cache(config)[_CACHE].get("swept", [])
    return swept


def set_swept_overrides(config: DictConfig, swept: list[str]) -> None:
    """Note in the config of a job which override keys its multirun varies."""
    OmegaConf.get_cache(config)[_CACHE]["swept"] = swept


def job_name(number: int, overrides: str, swept: list[str], variant: str = "") -> str:
    """Return the name of a job directory, such as `0007_lr-0.1_seed-3`.

    Args:
        number: Number of the job.
        overrides: Overrides of the job, separated by commas.
        swept: Override keys that the multirun varies; if empty, all overrides are in the name.
        variant: Name of the changes of an ablation, which stands for their overrides.
    """
    settings = [item.partition("=") for item in re.split(r",(?=[\w.+~/@]+=)", overrides) if item]
    if swept:
        keys = [bare_key(key) for key in swept if key != ABLATION]
        settings = [setting for setting in settings if bare_key(setting[0]) in keys]
    pairs = [(key.rpartition(".")[2].rpartition("/")[2], _rounded(value)) for key, _, value in settings]
    parts = ["-".join(filter(None, (_UNSAFE_IN_NAMES.sub("-", part).strip("-") for part in pair))) for pair in pairs]
    return "_".join(filter(None, [f"{int(number):04d}", variant, *parts]))[:_MAX_NAME]


def set_output_dir(directory: Path) -> None:
    """Set `${hydra:runtime.output_dir}` of the current HydraConfig, as Hydra does before it calls a job."""
    runtime: Any = HydraConfig.get().runtime
    with read_write(runtime), open_dict(runtime):
        runtime.output_dir = str(directory.absolute())


def compose_launcher(overrides: list[str]) -> dict[str, Any]:
    """Compose the settings of a launcher, without an experiment.

    Args:
        overrides: `hydra/launcher=NAME` and `hydra.launcher.KEY=VALUE`.

    Raises:
        UserError: If there is no such launcher or key.
    """
    try:
        with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
            config = compose(ROOT, overrides=overrides, return_hydra_config=True)
        settings = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_hydra_error(error, overrides)) from error
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items() if key != "_target_"}


class RunLoader(ConfigLoaderImpl):
    """Config loader that composes the config of a single run once.

    Hydra composes it twice: first to look up `hydra.mode`, as that of a multirun, then as that of a run.
    """

    _kept: tuple[list[str], DictConfig | Exception] | None = None  # overrides, and what they compose

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Return the config; that of a run is composed when Hydra looks up its mode, and kept for the second call."""
        compose_config = partial(super().load_configuration, config_name)
        looks_up_mode = run_mode == RunMode.MULTIRUN and not validate_sweep_overrides
        if looks_up_mode and not _MULTIRUN_FLAGS & set(sys.argv):
            try:
                composed = compose_config(overrides, RunMode.RUN, from_shell)
            except Exception as error:  # perhaps it is a multirun without its flag
                self._kept = ([*overrides], error)
            else:
                self._kept = ([*overrides], composed)
                return composed
        elif run_mode == RunMode.RUN and (kept := self._take(overrides)):
            if isinstance(kept, Exception):
                raise kept
            return kept
        return compose_config(overrides, run_mode, from_shell, validate_sweep_overrides)

    def _take(self, overrides: list[str]) -> DictConfig | Exception | None:
        """Return what is kept, once, if it is for these overrides, to which Hydra may have added the mode."""
        if self._kept is None:
            return None
        (before, kept), self._kept = self._kept, None
        if overrides == before:
            return kept
        if overrides != [*before, _RUN_MODE]:
            return None
        if isinstance(kept, DictConfig):
            kept.hydra.mode = RunMode.RUN
            kept.hydra.overrides.hydra.append(_RUN_MODE)
        return kept


class Composer:
    """Composes the jobs of a multirun; same results as `loader.load_sweep_config`, but configs are read once.

    The config files must not change meanwhile.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        """Take Hydra's config loader and the config of the multirun."""
        self._loader, self._master = loader, master
        self._can_copy = isinstance(loader, ConfigLoaderImpl) and not master.hydra.searchpath  # it may add groups
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._by_choices: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of one job, with the key `hydra`.

        Raises:
            HydraException: If an override or a config is wrong.
            OmegaConfBaseException: If a value is wrong.
        """
        parsed = [self._parse(override) for override in overrides]
        if not self._can_copy or any(line.is_sweep_override() or line.is_hydra_override() for line in parsed):
            return self._loader.load_sweep_config(self._master, list(overrides))
        choices = tuple(line for line, override in zip(overrides, parsed, strict=True) if self._is_choice(override))
        if choices not in self._by_choices:
            self._by_choices[choices] = self._loader.load_sweep_config(self._master, list(choices))
        composed = deepcopy(self._by_choices[choices])
        values = [override for override in parsed if not self._is_choice(override)]
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        self._record_overrides(composed, parsed)
        return composed

    def _parse(self, line: str) -> Override:
        if line not in self._parsed:
            (self._parsed[line],) = self._parser.parse_overrides([line])
        return self._parsed[line]

    def _is_choice(self, override: Override) -> bool:
        """Return whether Hydra takes the override for the choice of a config; a dict sets keys of a group."""
        assert isinstance(self._loader, ConfigLoaderImpl)
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = self._loader.repository.group_exists(key)
        return self._groups[key] and not isinstance(override.value(), dict)

    def _record_overrides(self, composed: DictConfig, overrides: list[Override]) -> None:
        """Set those of Hydra's own keys that depend on the overrides."""
        job = composed.hydra.job
        with open_dict(composed.hydra):
            composed.hydra.overrides.task = [override.input_line for override in overrides]
            style = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(
                overrides, list(style.exclude_keys), kv_sep=style.kv_sep, item_sep=style.item_sep
            )
        OmegaConf.copy_cache(from_config=self._master, to_config=composed)


def _experiment_name(*, _root_: DictConfig) -> str:
    """Return `<data>_<model>`, the chosen configs, else `<task>`; works before Hydra's own resolver does."""
    choices = (_root_.hydra if "hydra" in _root_ else HydraConfig.get()).runtime.choices
    chosen = [choices.get(group) for group in ("data", "model")]
    return "_".join(choice.replace("/", "_") for choice in chosen if choice) or choices.get("task") or "run"


def _study_directory(study: str | None, time: str, *, _root_: DictConfig) -> str:
    """Return the directory of a multirun: that of the named study, or a new one."""
    cache = OmegaConf.get_cache(_root_)[_CACHE]
    record_swept_overrides(_root_)
    return study or str(cache.setdefault(time, f"{_multirun_name(_root_)}/multirun_{time}_{secrets.token_hex(3)}"))


def _multirun_name(root: DictConfig) -> str:
    try:
        return str(root.name)
    except OmegaConfBaseException:  # part of it is known in jobs only; if it is wrong, it is wrong in them as well
        return _experiment_name(_root_=root)


def _job_directory(number: int, *, _root_: DictConfig) -> str:
    overrides = _root_.hydra.job._get_node("override_dirname")  # unresolved: no secret in the name of a directory
    return job_name(number, str(overrides._value() or ""), swept_overrides(_root_), _variant(_root_))


def _variant(root: DictConfig) -> str:
    """Return the name of the changes in a job of an ablation; empty for other jobs."""
    names = OmegaConf.select(root, ABLATION)
    changes = OmegaConf.select(root, "study.ablate") or {}
    return "" if names is None else variant_name([*names], [name for name in changes if changes[name] is not None])


def _find_swept_overrides(root: DictConfig) -> list[str]:
    if "hydra" not in root:
        return []
    lines = OmegaConf.to_container(root.hydra.overrides.task, resolve=False)  # interpolations may be secrets
    assert isinstance(lines, list)
    parsed = parse_overrides(lines)
    params = OmegaConf.select(root, "hydra.sweeper.params") or {}
    keys = [override.get_key_element() for override in parsed if override.is_sweep_override()]
    ablation = [ABLATION] if OmegaConf.select(root, "study.ablate") else []
    return list(dict.fromkeys(bare_key(key) for key in [*ablation, *keys, *map(str, params)]))


def _rounded(value: str) -> str:
    """Shorten a number that a search has drawn; the run's config has all digits."""
    return f"{float(value):.4g}" if _MANY_DIGITS.fullmatch(value) else value
