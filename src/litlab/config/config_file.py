"""Text of config.yaml, the frozen config of a run."""

import yaml

from litlab.config.tree import Config, check_plain
from litlab.errors import UserError
from litlab.runs.directory import FORMAT

_MAX_CHARACTERS = 2**22
_LINE_BREAKS = ("\x85", "\u2028", "\u2029")  # unless escaped, YAML reads them as blanks
_FOLDED_DIFFERENTLY = ('"', "'':", "? ")  # libyaml folds lines with these in another way than PyYAML
_FastDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml is ten times as fast


def to_yaml(config: Config) -> str:
    """Return the text of config.yaml."""
    text: str = yaml.dump(config, Dumper=_FastDumper, sort_keys=False, allow_unicode=True)
    if text.isascii() and not any(part in text for part in _FOLDED_DIFFERENTLY):
        return text
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if any(character in text for character in _LINE_BREAKS):
        return yaml.safe_dump(config, sort_keys=False, allow_unicode=False)
    return text


def from_yaml(text: str) -> Config:
    """Read the text of config.yaml. References to secrets are left as they are.

    Raises:
        UserError: If it is not a config of the format that this version reads.
    """
    if len(text) > _MAX_CHARACTERS:
        raise UserError(f"it has {len(text):,} characters; no config of a run has more than {_MAX_CHARACTERS:,}")
    try:
        config = yaml.safe_load(text)
    except RecursionError as error:
        raise UserError("it is nested too deeply for a config of a run") from error
    except Exception as error:  # PyYAML raises errors of many types, for `!!int x` as an example
        raise UserError(f"it is not valid YAML: {error}") from error
    check_plain(config)
    if not isinstance(config, dict) or "format" not in config:
        raise UserError("it is not a config frozen by litlab: it has no key `format`")
    if type(config["format"]) is not int or config["format"] != FORMAT:
        raise UserError(f"its format is {config['format']!r}: this version of litlab reads format {FORMAT} only")
    return config
