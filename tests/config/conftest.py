"""Hydra's config loader for litlab's own configs."""

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals

from litlab.config.compose import register_resolvers
from litlab.config.paths import VERSION_BASE, packaged_conf


@pytest.fixture(scope="session")
def loader() -> ConfigLoader:
    register_resolvers()
    setup_globals()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        return GlobalHydra.instance().config_loader()
