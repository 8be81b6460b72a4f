"""config.yaml, the frozen config of a run: its text, its identity, and the record of a run that is resumed."""

import hashlib
import json
import platform
from collections.abc import Collection
from typing import Any

import yaml

from litlab.config.tree import Config, check_plain, config_key, join, lies_under
from litlab.errors import UserError
from litlab.runs.directory import FORMAT, RunDirectory
from litlab.runs.files import sync_directory, write_json, write_text
from litlab.runs.signature import sign

# Keys that say where a run computes, reads and writes, not what it computes.
VOLATILE = (
    "name", "threads", "study", "logger", "checkpoint",
    "data.root", "data.cache", "data.url", "data.storage", "data.num_workers",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip
DATA_SOURCE = ("data.root", "data.url")  # those of them that say where the images come from
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


def identity(config: Config) -> str:
    """Return the SHA-256 of a frozen config without its volatile keys, except those that its study sweeps."""
    relevant = _without_volatile(config, "", swept_keys(config), is_volatile=False)
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def swept_keys(config: Config) -> list[str]:
    """Return the dotted keys of a run's config that its study sweeps; none for a single run.

    A group without a key of its own, such as `experiment`, may set any key. Then all volatile keys count as swept,
    except `study` itself and `threads`, which is set later.
    """
    study = config.get("study")
    overrides = study.get("swept") if isinstance(study, dict) else None
    swept = [config_key(str(key)) for key in overrides] if isinstance(overrides, list) else []
    sets_any_key = any(key.partition(".")[0] not in config for key in swept)
    return [*swept, *(key for key in VOLATILE if sets_any_key and key not in ("study", "threads"))]


def write_resume_record(
    run: RunDirectory,
    config: Config,
    changed: dict[str, list[Any]],
    launch: dict[str, Any],
    *,
    own: bool,
    extends_training: bool,
) -> list[str]:
    """Record a resumption in provenance.json and replace config.yaml if it changed.

    The caller holds the run's lock. If this is interrupted anywhere, the same command completes it.

    Args:
        run: Run directory.
        config: Config to resume with.
        changed: Dotted key -> [value before, value after].
        launch: Command, time and code, as `runs.provenance.describe_launch` returns them.
        own: Whether the run is the user's own; an untrusted run is not signed.
        extends_training: Whether the run continues beyond the end that it had.

    Returns:
        Notes on the code of the project, a line each.
    """
    provenance = run.read_json(run.provenance) if run.provenance.exists() else {}
    provenance = provenance if isinstance(provenance, dict) else {}
    entry = {"when": launch["started"], "command": launch["command"], "changed": changed}
    entry |= {"host": platform.node(), "code": launch["code"]}
    if extends_training:  # a worker does nothing for a run that is completed
        run.result.unlink(missing_ok=True)
        sync_directory(run.path)
    earlier = provenance.get("resumed")
    write_json(run.provenance, provenance | {"resumed": [*(earlier if isinstance(earlier, list) else []), entry]})
    if changed:
        text = to_yaml(config)
        if own:
            sign(run, next_config=text.encode())
        write_text(run.config, text)
        if own:
            sign(run)
    if own and provenance.get("code", entry["code"]) != entry["code"]:
        return ["the project's code has changed since the run started; the run continues with the present code"]
    return []


def _without_volatile(node: Any, parent: str, swept: Collection[str], *, is_volatile: bool) -> Any:
    """Copy a node without volatile values; below a volatile key only swept values are kept."""
    if not isinstance(node, dict):
        return node
    kept = {}
    for name, value in node.items():
        key = join(parent, name)
        if key in swept:
            kept[name] = value
        elif not (is_volatile or key in VOLATILE):
            kept[name] = _without_volatile(value, key, swept, is_volatile=False)
        elif isinstance(value, dict) and any(lies_under(other, key) for other in swept):
            kept[name] = _without_volatile(value, key, swept, is_volatile=True)
    return kept
