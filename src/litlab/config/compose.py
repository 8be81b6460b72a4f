"""What Hydra needs to know of litlab, and Hydra's own errors in words for the user."""

import re
import secrets
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from litlab.config.paths import cache_root, packaged_conf
from litlab.config.suggestions import GROUPS, GROUPS_OF_MANY, nearest, unknown_key
from litlab.config.tree import Config, keys

ROOT = "config"  # conf/config.yaml
VERSION_BASE = "1.3"
_OVERRIDDEN = re.compile(r"Could not (?:override|append to|delete from)[^']*'([^']+)'")
_MANY_DIGITS = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")
_UNFIT = re.compile(r"[^A-Za-z0-9_.+-]+")


def register_resolvers() -> None:
    """The `${litlab.*:}` functions of conf/config.yaml and conf/data/."""
    OmegaConf.register_new_resolver("litlab.cache", lambda: str(cache_root()), replace=True)
    OmegaConf.register_new_resolver("litlab.id", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("litlab.name", _name, replace=True)
    OmegaConf.register_new_resolver("litlab.study", _study, replace=True)
    OmegaConf.register_new_resolver("litlab.job", _job, replace=True)


def _name(*, _root_: DictConfig) -> str:
    """`<data>_<model>`, the configs chosen; also for the directory of a multirun, before Hydra's own resolver works."""
    choices = (_root_.hydra if "hydra" in _root_ else HydraConfig.get()).runtime.choices
    chosen = [choices.get(group) for group in ("data", "model")]
    return "_".join(each.replace("/", "_") for each in chosen if each)


def _study(study: str | None, time: str, *, _root_: DictConfig) -> str:
    """A named study has a directory of its own; any other multirun gets a new one, by its name before any job's."""
    cache = OmegaConf.get_cache(_root_)["litlab.study"]
    note_swept(_root_)
    return study or str(cache.setdefault(time, f"{_common_name(_root_)}/multirun_{time}_{secrets.token_hex(3)}"))


def _common_name(root: DictConfig) -> str:
    try:
        return str(root.name)
    except OmegaConfBaseException:  # it has a part that only jobs know; if it is wrong, it is wrong in them as well
        return _name(_root_=root)


def note_swept(master: DictConfig) -> None:
    """Note in the config of a multirun which keys it varies: Hydra hands this on to the jobs."""
    OmegaConf.get_cache(master)["litlab.study"].setdefault("swept", _swept(master))


def swept_keys(config: DictConfig) -> list[str]:
    """The keys that a multirun varies, by its config or that of a job; none for a single run."""
    known: list[str] = OmegaConf.get_cache(config)["litlab.study"].get("swept", [])
    return known


def _swept(root: DictConfig) -> list[str]:
    if "hydra" not in root:
        return []
    written = OmegaConf.to_container(root.hydra.overrides.task, resolve=False)  # what it refers to may be a secret
    assert isinstance(written, list)
    parsed = OverridesParser.create().parse_overrides(written)
    params = OmegaConf.select(root, "hydra.sweeper.params") or {}
    keys = [each.get_key_element() for each in parsed if each.is_sweep_override()] + [str(key) for key in params]
    return list(dict.fromkeys(plain_key(key) for key in keys))


def plain_key(key: str) -> str:
    """The key of an override without its plus: `+model@net` is `model@net`."""
    return key.lstrip("+~")


def _job(number: int, *, _root_: DictConfig) -> str:
    written = _root_.hydra.job._get_node("override_dirname")  # unresolved: no secret in the name of a directory
    return job_name(number, str(written._value() or ""), swept_keys(_root_))


def job_name(number: int, overrides: str, swept: list[str]) -> str:
    """`0007_lr-0.1_seed-3`: the number, then the last part of each key swept with its value, free of Hydra's grammar.

    Where it isn't known what is swept, all overrides.
    """
    settings = [item.partition("=") for item in re.split(r",(?=[\w.+~/@]+=)", overrides) if item]
    if swept:
        keys = [plain_key(key) for key in swept]
        settings = [each for each in settings if plain_key(each[0]) in keys]
    parts = [(key.rpartition(".")[2].rpartition("/")[2], _rounded(value)) for key, _, value in settings]
    short = ["-".join(filter(None, (_UNFIT.sub("-", part).strip("-") for part in pair))) for pair in parts]
    return "_".join([f"{int(number):04d}", *short])[:120]


def _rounded(value: str) -> str:
    """A number that a search has drawn has more digits than a name needs; the run's config has them all."""
    return f"{float(value):.4g}" if _MANY_DIGITS.fullmatch(value) else value


def set_output_dir(directory: Path) -> None:
    """For `${hydra:runtime.output_dir}` of the config that HydraConfig has, as Hydra does it before it calls a job."""
    runtime: Any = HydraConfig.get().runtime
    with read_write(runtime), open_dict(runtime):
        runtime.output_dir = str(directory.absolute())


def in_users_words(error: Exception, arguments: list[str]) -> str | None:
    """What a user can do something about, of what comes out of Hydra's main; None for anything else."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain(error, arguments)
    if isinstance(error, OSError) and error.filename:
        return cannot_write(error.filename, error)
    if isinstance(error, ValueError) and _raised_by_hydra(error):
        return _plain(error, arguments)
    return None


def cannot_write(path: object, error: OSError) -> str:
    """For a run directory, or what is above it."""
    return (
        f"{path}: {error.strerror}; a run makes a directory of its own, by default in outputs/: "
        "choose another place with hydra.run.dir=..., for a multirun with hydra.sweep.dir=..."
    )


def _raised_by_hydra(error: ValueError) -> bool:
    """Hydra says some of what a user can get wrong with a bare ValueError."""
    return "hydra" in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts


def _plain(error: ValueError, arguments: list[str]) -> str:
    nulls = [each.removesuffix("=null") for each in arguments if each.endswith("=null")]
    if nulls and "Config group override" in str(error):
        return f"{nulls[0]}=null: a group takes the name of a config; to leave the group out, write ~{nulls[0]}"
    return str(error)


def explain(error: HydraException | OmegaConfBaseException, arguments: list[str]) -> str:
    """A composition error in our words: the key, what was expected, the nearest match."""
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read as an override; expected key=value, "
            """where a value with special characters is quoted, as in 'data.root="~/my images"'"""
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_config(error)
    text, cause = str(error), error.__cause__
    reason = (str(cause) if isinstance(cause, OmegaConfBaseException) else text).splitlines()[0]
    if overridden := _OVERRIDDEN.search(text):
        key = overridden[1].lstrip("+~").partition("@")[0]
        is_hydras = key.startswith("hydra.")
        known = [each for each in _known(arguments) if each.startswith("hydra.") == is_hydras]
        return f"{key}: {reason}" if key in known else _unknown(key, known)
    key = getattr(cause, "full_key", None)
    return f"{key}: {reason}" if key else reason


def _unknown_config(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    return f"{group}={option}: no such config{nearest(option, options)}; known: {', '.join(options)}"


def _unknown(key: str, known: list[str]) -> str:
    group = key.partition(".")[0]
    line = unknown_key(key, known)
    if group in (*GROUPS, *GROUPS_OF_MANY) and "." in key and "did you mean" not in line:
        line += f"\nAn argument that the class has, but its YAML has not, is added with a plus: +{key}=..."
    return line


def _known(arguments: list[str]) -> list[str]:
    """The keys and groups there are, under the group choices among the arguments."""
    with _another_hydra(), initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        groups = loader.list_groups("")
        choices = [each for each in arguments if re.match(rf"({'|'.join(groups)})(/\w+)*=", each)]
        config = loader.load_configuration(ROOT, overrides=choices, run_mode=RunMode.RUN)
    written = cast(Config, OmegaConf.to_container(config, resolve=False))
    return [*(key for key in keys(written) if key != "hydra"), *groups]


@contextmanager
def _another_hydra() -> Iterator[None]:
    """Hydra is one for a process, and busy while it composes a multirun."""
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        yield
    finally:
        instance.hydra = before


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
