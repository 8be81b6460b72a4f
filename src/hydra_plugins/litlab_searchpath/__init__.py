"""Hydra's search path: configs in the user's own `./conf` precede litlab's. Both are read by `ConfFolder`."""

import re
from io import StringIO
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.hydra_errors import explain_yaml_error
from litlab.config.paths import ROOT, packaged_conf, project_conf
from litlab.errors import UserError
from litlab.runs.terminal import display_path

_FORMAT = re.compile(r"^format\s*:", re.MULTILINE)  # a key of each root config that litlab reads


class ProjectSearchPath(SearchPathPlugin):
    """Plugin that acts on `litlab train` alone: other Hydra apps in the environment keep their search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the project's `conf/` first.

        Raises:
            UserError: If it is that of another program, whose `config.yaml` would replace litlab's own.
        """
        main = next((item for item in search_path.get_path() if item.provider == "main"), None)
        if main is None or main.path.removeprefix("file://") != str(packaged_conf()):
            return
        main.path = f"{ConfFolder.scheme()}://{packaged_conf()}"
        own = project_conf(Path.cwd())
        if own is not None:
            _refuse_other_root(own / f"{ROOT}.yaml")
            path = f"{ConfFolder.scheme()}://{own}"
            search_path.prepend(provider="project", path=path, anchor=SearchPathQuery(provider="main"))


class ConfFolder(FileConfigSource):
    """Source of configs that says in a sentence why a file can't be read. A byte order mark is skipped."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of paths in Hydra's search path."""
        return "conf"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a config.

        Raises:
            UserError: With file, line and remedy if it is not a YAML mapping in UTF-8.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        shown = display_path(file)
        try:
            text = file.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte order mark
            config = OmegaConf.load(StringIO(text))
            header = self._get_header_dict(text[:512])
        except UnicodeDecodeError as error:
            raise UserError(f"{shown}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
        except yaml.YAMLError as error:
            raise UserError(explain_yaml_error(error, shown)) from error
        except (OmegaConfBaseException, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(f"{shown}: {reason}") from error
        if not isinstance(config, DictConfig):
            raise UserError(f"{shown}: expected keys with values, `key: value`, found a list")
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)


def _refuse_other_root(file: Path) -> None:
    """Refuse a root config that is not made for litlab, as in a folder of another program that uses Hydra."""
    if file.is_file() and not _FORMAT.search(file.read_text(encoding="utf-8", errors="replace")):
        raise UserError(
            f"{display_path(file)} replaces litlab's own config.yaml, but has no key `format`, so it is not made for "
            "litlab; rename it, or start litlab in another folder"
        )
