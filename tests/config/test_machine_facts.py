"""What a config leaves open is as the first start recorded it, and as nothing else that a file may hold."""

from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, compose_config

from litlab.config.config_file import to_yaml
from litlab.config.machine_facts import open_keys, with_machine_facts, without_decisions
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json

OPEN = (*TINY, "trainer.accelerator=auto", "trainer.devices=auto", "trainer.precision=auto", "threads=null")
KEYS = ["trainer.accelerator", "trainer.devices", "trainer.precision", "threads"]
FACTS = {"accelerator": "cuda", "devices": 2, "precision": "bf16-mixed", "threads": 3, "automatic": KEYS}


@pytest.fixture
def config() -> dict[str, Any]:
    return compose_config(*OPEN)


def new_run(folder: Path, config: dict[str, Any], machine: Any = None) -> RunDirectory:
    run = RunDirectory.create(folder / "run", to_yaml(config), {})
    if machine is not None:
        write_json(run.provenance, {"machine": machine})
    return run


def decided(config: dict[str, Any]) -> list[Any]:
    return [*(config["trainer"][name] for name in ("accelerator", "devices", "precision")), config["threads"]]


def test_open_keys_are_as_recorded(config: dict[str, Any], tmp_path: Path) -> None:
    assert open_keys(config) == KEYS
    assert decided(with_machine_facts(new_run(tmp_path / "new", config), config)) == ["auto", "auto", "auto", None]
    assert decided(with_machine_facts(new_run(tmp_path, config, FACTS), config)) == ["cuda", 2, "bf16-mixed", 3]
    assert decided(config) == ["auto", "auto", "auto", None]


def test_numbers_in_the_config_stay(tmp_path: Path) -> None:
    config = compose_config(*TINY)
    assert open_keys(config) == []
    assert with_machine_facts(new_run(tmp_path, config, FACTS), config) is config


def test_what_was_a_number_then_is_open_now(config: dict[str, Any], tmp_path: Path) -> None:
    """The first start had no choice, so what it recorded is not its decision."""
    run = new_run(tmp_path, config, FACTS | {"automatic": ["threads"]})
    assert decided(with_machine_facts(run, config)) == ["auto", "auto", "auto", 3]


@pytest.mark.parametrize(
    "machine",
    [
        [],
        {"automatic": "threads", "threads": 3},
        {"automatic": [["threads"], 1], "threads": 3},
        {"automatic": KEYS},
        {"automatic": KEYS, "accelerator": "os.system", "devices": 0, "precision": "auto", "threads": 1e9},
        {"automatic": KEYS, "accelerator": ["cpu"], "devices": True, "precision": ["32-true"], "threads": 10**6},
    ],
)
def test_anything_else_in_the_record_counts_for_nothing(config: dict[str, Any], machine: Any, tmp_path: Path) -> None:
    assert decided(with_machine_facts(new_run(tmp_path, config, machine), config)) == ["auto", "auto", "auto", None]


def test_an_override_takes_a_decision_back() -> None:
    provenance = {"command": ["litlab"], "machine": FACTS}
    assert without_decisions(provenance, ["seed"]) is provenance
    changed = without_decisions(provenance, ["trainer.devices", "threads"])
    assert changed == {
        "command": ["litlab"],
        "machine": FACTS | {"automatic": ["trainer.accelerator", "trainer.precision"]},
    }
    assert without_decisions(provenance, ["trainer"])["machine"]["automatic"] == ["threads"]
    assert without_decisions({}, ["threads"]) == {}
