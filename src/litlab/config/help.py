"""`litlab train --help`: the text of conf/hydra/help/, filled in. Hydra's own takes twice as long for the same."""

from collections.abc import Iterator
from string import Template
from typing import cast

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import OmegaConf

from litlab.config.compose import ROOT, VERSION_BASE
from litlab.config.location import packaged_conf

_NO_CHOICE = ("hydra", "data/base")  # Hydra's own, and what data sets have in common
FLAGS = ("-h", "--help", "-m", "--multirun")


def asks_for_help(arguments: list[str]) -> bool:
    """Whether help is asked for, with no other flag of Hydra's."""
    flags = [each for each in arguments if each.startswith("-")]
    return any(each in ("-h", "--help") for each in flags) and all(each in FLAGS for each in flags)


def help_text(arguments: list[str]) -> str:
    """The groups with their options, and the keys of what these arguments compose."""
    overrides = [each for each in arguments if each not in FLAGS]
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())
        config = loader.load_configuration(ROOT, overrides=overrides, run_mode=RunMode.RUN)
        groups = "".join(f"{group}: {', '.join(options)}\n" for group, options in _groups(loader))
    keys = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    template: str = config.hydra.help.template
    return Template(template).safe_substitute(APP_CONFIG_GROUPS=groups, CONFIG=keys).rstrip()


def _groups(loader: ConfigLoaderImpl, parent: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every group and its options, but those that nobody chooses from."""
    for name in sorted(loader.repository.get_group_options(parent, ObjectType.GROUP)):
        group = f"{parent}/{name}" if parent else name
        if group in _NO_CHOICE:
            continue
        if options := loader.repository.get_group_options(group):
            yield group, options
        yield from _groups(loader, group)
