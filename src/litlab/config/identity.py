"""What makes two runs the same experiment."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

# Where a run computes, writes and reads; not what it computes.
VOLATILE = (
    "name", "threads", "study", "logger", "checkpoint",
    "data.root", "data.cache", "data.url",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip


def identity(config: dict[str, Any]) -> str:
    """SHA-256 of a frozen config without the volatile keys, except those that its study sweeps."""
    kept = _counting(config, "", swept(config), False)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def swept(config: dict[str, Any]) -> list[str]:
    """The keys and groups that the study of a run sweeps; configs from before there were studies don't say."""
    study = config.get("study")
    return list(study.get("swept", ())) if isinstance(study, dict) else []


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
