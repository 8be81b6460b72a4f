"""Configs of multiruns, as Hydra passes them to a launcher."""

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig

from litlab.config.compose import record_swept_overrides
from litlab.config.paths import ROOT


def compose_master(loader: ConfigLoader, *arguments: str) -> DictConfig:
    """Compose the config of a multirun."""
    master = loader.load_configuration(ROOT, list(arguments), RunMode.MULTIRUN)
    record_swept_overrides(master)
    return master
