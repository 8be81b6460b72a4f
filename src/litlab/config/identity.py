"""Identity of a run: a hash of the config values that determine its results."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from litlab.config.tree import Config, config_key, join, lies_under
from litlab.runs.files import as_mapping

# Keys that say where a run computes, reads and writes, not what it computes; see also `volatile_keys`.
VOLATILE = (
    "name", "threads", "study", "logger", "checkpoint", "init_from.path",
    "data.root", "data.path", "data.cache", "data.url", "data.storage", "data.num_workers",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip
_NEVER_SWEPT = ("study", "threads", "init_from.path")  # a path to weights is not what a study varies, but its hash
_OF_LITLABS_DATA = ("data.root", "data.path", "data.cache", "data.url", "data.storage")
DATA_SOURCE = ("data.root", "data.path", "data.url")  # those of them that say where the images come from


def volatile_keys(data_target: object) -> tuple[str, ...]:
    """Return those of `VOLATILE` that are volatile under a data module.

    A class of the user's own may mean something else by the keys of its location, and has no fingerprint to tell other
    data by; so they count. This holds for a subclass of litlab's, too: only its import would tell.

    Args:
        data_target: `data._target_`.
    """
    if str(data_target).startswith("litlab."):
        return VOLATILE
    return tuple(key for key in VOLATILE if key not in _OF_LITLABS_DATA)


def identity(config: Config) -> str:
    """Return the SHA-256 of a frozen config without its volatile keys, except those that its study sweeps."""
    volatile = volatile_keys(as_mapping(config.get("data")).get("_target_"))
    relevant = _without_volatile(config, "", volatile, swept_keys(config), is_volatile=False)
    text = json.dumps(_with_text_keys(relevant), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def swept_keys(config: Config) -> list[str]:
    """Return the dotted keys of a run's config that its study sweeps; none for a single run.

    A group without a key of its own, such as `experiment`, may set any key. Then all volatile keys count as swept,
    except `study` itself, `threads`, which is set later, and the path of `init_from`, whose content counts.
    """
    overrides = as_mapping(config.get("study")).get("swept")
    swept = [config_key(str(key)) for key in overrides] if isinstance(overrides, list) else []
    sets_any_key = any(key.partition(".")[0] not in config for key in swept)
    swept = ["init_from.sha256" if key == "init_from" else key for key in swept]
    return [*swept, *(key for key in VOLATILE if sets_any_key and key not in _NEVER_SWEPT)]


def _without_volatile(
    node: Any, parent: str, volatile: Collection[str], swept: Collection[str], *, is_volatile: bool
) -> Any:
    """Copy a node without volatile values; below a volatile key only swept values are kept."""
    if not isinstance(node, dict):
        return node
    kept = {}
    for name, value in node.items():
        key = join(parent, name)
        if key in swept:
            kept[name] = value
        elif not (is_volatile or key in volatile):
            kept[name] = _without_volatile(value, key, volatile, swept, is_volatile=False)
        elif isinstance(value, dict) and any(lies_under(other, key) for other in swept):
            kept[name] = _without_volatile(value, key, volatile, swept, is_volatile=True)
    return kept


def _with_text_keys(node: Any) -> Any:
    """Return a copy in which all keys are texts, so that they can be sorted."""
    if isinstance(node, list):
        return [_with_text_keys(value) for value in node]
    return {str(key): _with_text_keys(value) for key, value in node.items()} if isinstance(node, dict) else node
