"""Which settings of a run TensorBoard is told, and in what types."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.studies import config_with, make_run

from litlab.runs.directory import RunDirectory
from litlab.runs.redact import register_secrets
from litlab.tensorboard import session_hparams


def with_overrides(path: Path, *overrides: str) -> RunDirectory:
    return RunDirectory.create(path, "", {"overrides.yaml": "".join(f"- {each}\n" for each in overrides)})


def of_job(path: Path, values: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """Of a job whose study sweeps the keys of the overrides."""
    config = config_with(values)
    config["study"] = {"name": "s", "swept": [each.partition("=")[0] for each in overrides]}
    return session_hparams(with_overrides(path, *overrides), config)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("optimizer.lr", 0.1, 0.1),
        ("model.depth", 3, 3),
        ("data.flip", False, False),
        ("data.corruption", "fog", "fog"),
        ("model.widths", [4, 8], "[4,8]"),
        ("optimizer.lr", float("inf"), "Infinity"),
        ("seed", 10**400, str(10**400)),
        ("data.corruption", "\ud800", "?"),
        ("trainer.devices", 2, 2),
        ("data.since", date(2026, 1, 31), '"2026-01-31"'),
        ("data.corruption", "x" * 1000, "x" * 500),
    ],
)
def test_a_value_is_told_as_what_it_is(key: str, value: Any, told: Any, tmp_path: Path) -> None:
    found = of_job(tmp_path / "run", {key: value}, f"{key}=whatever")
    assert found == {key: told}
    assert type(found[key]) is type(told)


def test_a_choice_is_told_by_its_name(tmp_path: Path) -> None:
    found = of_job(tmp_path / "run", {}, "model=cnn", "+experiment=cifar10", "data/augment@data.more=crop", "seed=3")
    assert found == {"model": "cnn", "experiment": "cifar10", "data/augment@data.more": "crop", "seed": 0}


def test_null_and_secrets_are_not_told(tmp_path: Path) -> None:
    register_secrets(["hunter2hunter2"])
    values = {"trainer.gradient_clip_val": None, "data.token": "${oc.env:NAME}", "data.note": "a hunter2hunter2"}
    found = of_job(tmp_path / "run", values, "trainer.gradient_clip_val=null", "data.token=x", "data.note=x")
    assert found == {"data.note": "a ***"}


def test_what_a_stranger_wrote_is_left_out(tmp_path: Path) -> None:
    itself: list[Any] = []
    itself.append(itself)
    config = config_with({"data.more": itself, "data.keys": [{(1, 2): 3}]})
    for swept in (["data.more", "data.keys", 3, None, ["x"]], "data.more", {"data.more": 1}, None):
        config["study"] = {"swept": swept}
        assert session_hparams(RunDirectory(tmp_path), config).keys() <= {"seed"}
    assert session_hparams(RunDirectory(tmp_path), {"study": "s", "seed": 1}) == {"seed": 1}


def test_of_a_single_run_what_its_command_set_and_the_seed(tmp_path: Path) -> None:
    overrides = ("optimizer.lr=0.3", "model=cnn", "trainer=cpu", "trainer.max_epochs=2", "trainer.devices=2", "name=x")
    overrides += ("~schedule", "data.root=/somewhere", "threads=1", "logger.tensorboard.flush=3", "hydra.run.dir=out")
    found = session_hparams(with_overrides(tmp_path / "run", *overrides), config_with({"optimizer.lr": 0.3, "seed": 7}))
    assert found == {"optimizer.lr": 0.3, "model": "cnn", "trainer.max_epochs": 2, "seed": 7}


@pytest.mark.parametrize("record", ["{", "3", "- 1\n- [a, b]\n- null\n", "[" * 1000])
def test_a_damaged_record_leaves_the_seed(record: str, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "", {"overrides.yaml": record})
    assert session_hparams(run, config_with({})) == {"seed": 0}


def test_of_a_job_without_a_record_what_its_config_has(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"optimizer.lr": 0.2}, 0.5, swept=["optimizer.lr", "model"])
    assert session_hparams(run, run.read_config()) == {"optimizer.lr": 0.2}
