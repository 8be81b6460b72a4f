"""Origin of a value: the file and line of the project's configs that set a key."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig

from litlab.config.paths import project_conf
from litlab.config.tree import GROUPS, config_key, lies_under
from litlab.runs.terminal import display_path

_KEY = re.compile(r"[\w.]+")


def with_origin(problem: str) -> str:
    """Return a problem that begins with a dotted key, after the file and line of the project's configs that set it.

    What the command line sets, or a config of litlab, has no such origin.
    """
    match = _KEY.match(problem)
    project = project_conf(Path.cwd())
    if match is None or project is None or not HydraConfig.initialized():
        return problem
    key, settings = match[0], HydraConfig.get()
    overridden = (config_key(line.partition("=")[0]) for line in settings.overrides.task)
    if lies_under(key, *(other for other in overridden if other not in settings.runtime.choices)):
        return problem
    choices = sorted(settings.runtime.choices.items(), key=lambda choice: choice[0] in GROUPS)  # recipes first
    for group, option in choices:
        file = project / str(group) / f"{option}.yaml"
        package = str(group).replace("/", ".")
        keys = [key, key.removeprefix(f"{package}.")] if lies_under(key, package) else [key]
        if file.is_file() and (line := next(filter(None, (_line(file, name.split(".")) for name in keys)), None)):
            return f"{display_path(file)}, line {line}: {problem}"
    return problem


def _line(file: Path, names: Sequence[str]) -> int | None:
    """Return the number of the line that sets a key, given by its parts; None if there is none."""
    node, line = yaml.compose(file.read_text(encoding="utf-8-sig")), None
    for name in names:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next((entry for entry in entries if entry[0].value == name), None)
        if entry is None:
            return None
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line
