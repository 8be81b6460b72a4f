"""Hydra's search path: configs in the user's own `./conf` precede litlab's."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin

from litlab.config.paths import packaged_conf, project_conf


class ProjectSearchPath(SearchPathPlugin):
    """Plugin that acts on `litlab train` alone: other Hydra apps in the environment keep their search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the project's `conf/` first."""
        main = next((item for item in search_path.get_path() if item.provider == "main"), None)
        own = project_conf(Path.cwd())
        if main is not None and main.path.removeprefix("file://") == str(packaged_conf()) and own is not None:
            search_path.prepend(provider="project", path=f"file://{own}", anchor=SearchPathQuery(provider="main"))
