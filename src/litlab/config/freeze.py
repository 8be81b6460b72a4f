"""Freezing: a composed config becomes plain, resolved and complete; only secrets stay references."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.hydra_errors import explain_interpolation_error, missing_header
from litlab.config.origin import with_origin
from litlab.config.schema import SECTIONS, Root, Study
from litlab.config.secrets import keep_references, mask_secrets
from litlab.config.tree import GROUPS, MAPPING_GROUPS, Config
from litlab.config.validate import validate
from litlab.errors import UserError
from litlab.runs.initial_weights import find_weights
from litlab.runs.processor import num_cores

_HYDRA_KEYS = ["run", "sweep", "launcher", "sweeper", "overrides", "job", "runtime", "mode"]  # of hydra.yaml
_YAML_BOOLS = ("y", "yes", "n", "no", "true", "false", "on", "off")


def freeze(composed: DictConfig, *, fill_threads: bool = True) -> Config:
    """Resolve, check and freeze a config as Hydra composed it, without the key `hydra`.

    Args:
        composed: Composed config.
        fill_threads: Replace `threads: null` by the number for a single run. In a multirun it depends on the jobs.

    Raises:
        UserError: For values that are missing, unknown, out of range, or that cannot be resolved.
    """
    try:
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(explain_interpolation_error(error)) from error
    assert isinstance(resolved, dict)
    left_out = {key: None for key in (*GROUPS, *MAPPING_GROUPS, "init_from") if key not in resolved}
    config: Config = {str(key): value for key, value in resolved.items()} | left_out
    _refuse_misplaced_keys(config)
    try:
        validate(config)
        _refuse_unused_size(config)
        _refuse_single_ablation(config)
        if (init := config["init_from"]) is not None:
            config["init_from"] = find_weights(init if isinstance(init, str) else init["path"])
    except UserError as error:
        raise UserError("\n".join(map(with_origin, str(error).splitlines()))) from error
    if config["data"]:
        make_paths_absolute(config["data"])
    if fill_threads and config["threads"] is None:
        config["threads"] = threads_per_rank(config["trainer"])
    return keep_references(config, OmegaConf.to_container(composed, resolve=False))


def _refuse_misplaced_keys(config: Config) -> None:
    """Refuse a recipe without a header, such as `experiment=mine`, whose keys therefore lie below its group.

    Raises:
        UserError: With the file and the header that it lacks.
    """
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    for group, choice in choices.items():
        node = config.get(group) if group == "study" or group not in Root.model_fields else None
        root_keys = {*Root.model_fields, "hydra"} - ({*Study.model_fields} if group == "study" else set())
        if choice and isinstance(node, dict) and root_keys & node.keys():
            raise UserError(missing_header(f"{group}/{choice}"))


def _refuse_unused_size(config: Config) -> None:
    """Refuse a size of the validation split on the command line of a k-fold, which would not use it.

    Raises:
        UserError: With what to leave out.
    """
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    if (config["data"] or {}).get("folds") is not None and any(line.startswith("data.val_size=") for line in overrides):
        raise UserError(
            f"data.val_size={config['data']['val_size']}: is not used with data.folds, where one of the folds is the "
            "validation; leave out one of the two"
        )


def _refuse_single_ablation(config: Config) -> None:
    """Refuse a run that has changes of an ablation, but is not one of its jobs.

    Raises:
        UserError: With what makes them.
    """
    if config["study"].get("ablate") and config["study"].get("ablation") is None:
        raise UserError(
            "study.ablate: an ablation is a multirun of the grid sweeper, with a job for each change: add -m, and "
            "leave hydra/sweeper out"
        )


def make_paths_absolute(data: Config) -> None:
    """Make the paths of a data module absolute, since the config may be read in another folder.

    To a data module of the user's own, they may mean something else, and `path` may be the id of a hub, unless there is
    such a file or folder.
    """
    for key in ("root", "cache", "path"):
        if isinstance(value := data.get(key), str):
            path = Path(value).expanduser().absolute()
            if (data["_target_"] in SECTIONS and key != "path") or (value and path.exists()):
                data[key] = str(path)


def threads_per_rank(trainer: Config) -> int | None:
    """Return the CPU cores of this process over the ranks of a machine; None if only the worker can count devices."""
    devices = trainer["devices"]
    if devices in ("auto", -1):
        return num_cores() if trainer["accelerator"] == "cpu" else None
    return max(1, num_cores() // (len(devices) if isinstance(devices, list) else devices))


def hydra_record(composed: DictConfig) -> dict[str, str]:
    """Return name -> text of the files of `.hydra/`, unresolved and with secrets in Hydra's own keys masked."""
    config, settings = (
        OmegaConf.to_container(part, resolve=False, enum_to_str=True) for part in (composed, HydraConfig.get())
    )
    assert isinstance(settings, dict)
    return {
        "config.yaml": _to_hydra_yaml(config),
        "hydra.yaml": _to_hydra_yaml({"hydra": {key: settings[key] for key in _HYDRA_KEYS}}),
        "overrides.yaml": _to_hydra_yaml(settings["overrides"]["task"]),
    }


class _HydraDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml is ten times as fast
    """Quotes strings that OmegaConf would read as numbers or bools; it takes more for those than YAML does."""

    def represent_text(self, value: str) -> yaml.ScalarNode:
        quotes = "'" if value.lower() in _YAML_BOOLS or _is_number(value) else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", value, style=quotes)
        return node


_HydraDumper.add_representer(str, _HydraDumper.represent_text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_hydra_yaml(record: Any) -> str:
    text: str = yaml.dump(mask_secrets(record), Dumper=_HydraDumper, sort_keys=False, allow_unicode=True)
    return text
