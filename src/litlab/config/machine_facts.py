"""Facts about the machine that a config leaves open: the first start of a run decides them, and later starts keep them.

They are in provenance.json, `machine`, whose entry `automatic` names the keys that were open. config.yaml stays as it
is. An override of such a key, also by the value that it has, lets the next start decide again.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

from litlab.config.tree import Config, get, lies_under, put
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping

_OPEN = {  # key -> open values
    "trainer.accelerator": ("auto",),
    "trainer.devices": ("auto", -1),
    "trainer.precision": ("auto",),
    "threads": (None,),
}
_CHOICES = {"trainer.accelerator": ("cpu", "cuda", "mps", "tpu"), "trainer.precision": ("32-true", "bf16-mixed")}
_MAX_COUNT = 4096  # devices, or threads: provenance.json may be untrusted


def open_keys(config: Config) -> list[str]:
    """Return the keys of a frozen config whose values depend on the machine that it runs on."""
    return [key for key, values in _OPEN.items() if get(config, key) in values]


def with_machine_facts(run: RunDirectory, config: Config) -> Config:
    """Return the config with what an earlier start of the run has decided where the config leaves it open.

    Args:
        run: Run directory.
        config: Frozen config; it is not changed.

    Raises:
        UserError: If provenance.json is damaged.
    """
    keys = open_keys(config)
    if not keys:
        return config
    machine = as_mapping(run.read_mapping(run.provenance).get("machine"))
    decided = deepcopy(config)
    for key in keys:
        value = machine.get(key.rpartition(".")[2])
        if key in _automatic(machine) and _is_valid(key, value):
            put(decided, key, value)
    return decided


def without_decisions(provenance: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the content of provenance.json without the decisions on these keys, or on keys below them."""
    machine = as_mapping(provenance.get("machine"))
    kept = [key for key in _automatic(machine) if not lies_under(key, *keys)]
    return provenance | {"machine": machine | {"automatic": kept}} if kept != _automatic(machine) else provenance


def _automatic(machine: dict[str, Any]) -> list[str]:
    keys = machine.get("automatic")
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _is_valid(key: str, value: Any) -> bool:
    if key in _CHOICES:
        return isinstance(value, str) and value in _CHOICES[key]
    return type(value) is int and 0 < value <= _MAX_COUNT
