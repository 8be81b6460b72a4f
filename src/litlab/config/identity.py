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


def identity(config: dict[str, Any], swept: Collection[str] = ()) -> str:
    """SHA-256 of a frozen config without the volatile keys, except those that a study sweeps."""
    kept = _without(config, "", frozenset(VOLATILE) - frozenset(swept))
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _without(node: Any, path: str, dropped: Collection[str]) -> Any:
    if not isinstance(node, dict):
        return node
    children = {key: f"{path}.{key}" if path else str(key) for key in node}
    return {key: _without(value, children[key], dropped) for key, value in node.items() if children[key] not in dropped}
