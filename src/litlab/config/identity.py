"""What makes two runs the same experiment."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from litlab.runs.later_keys import without_later_keys

# Where a run computes, writes and reads; not what it computes.
VOLATILE = (
    "name", "threads", "study", "logger", "checkpoint",
    "data.root", "data.cache", "data.url", "data.storage", "data.num_workers",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip
ORIGIN = ("data.root", "data.url")  # of these, what says where the images come from


def identity(config: dict[str, Any]) -> str:
    """SHA-256 of a frozen config without the volatile keys, except those that its study sweeps.

    Keys that came later and are off don't count: so a run from before there were such keys keeps its identity.
    """
    kept = _counting(without_later_keys(config), "", swept(config), False)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def swept(config: dict[str, Any]) -> list[str]:
    """What the study of a run sweeps, as places in its config; configs from before there were studies don't say.

    A group without a place of its own, such as `experiment`, may set anything: then all volatile keys are swept, but
    for the study itself and `threads`, which is settled later.
    """
    study = config.get("study")
    keys = study.get("swept") if isinstance(study, dict) else None
    places = [place(str(key)) for key in keys] if isinstance(keys, list) else []
    is_anywhere = any(each.partition(".")[0] not in config for each in places)
    return [*places, *(key for key in VOLATILE if is_anywhere and key not in ("study", "threads"))]


def place(key: str) -> str:
    """Where in the config an override has its effect: `+model@net` and `data/augment` are net and data.augment."""
    group, _, package = key.lstrip("+~").partition("@")
    return (package or group).replace("/", ".")


def _counting(node: Any, path: str, swept: Collection[str], volatile: bool) -> Any:
    """A copy with what counts; inside a volatile node only what is swept."""
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if here in swept:
            kept[key] = value
        elif not (volatile or here in VOLATILE):
            kept[key] = _counting(value, here, swept, False)
        elif isinstance(value, dict) and any(each.startswith(f"{here}.") for each in swept):
            kept[key] = _counting(value, here, swept, True)
    return kept
