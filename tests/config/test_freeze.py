"""Freezing: plain, resolved, complete; and the files in .hydra/."""

import os
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from support.runs import TINY, compose_config

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.freeze import hydra_record, threads_per_rank
from litlab.config.paths import ROOT
from litlab.config.tree import diff
from litlab.runs.processor import num_cores


def test_frozen_config_is_plain_and_resolved() -> None:
    config = compose_config(*TINY, "seed=7", "trainer.max_epochs=5")
    assert "${" not in to_yaml(config)
    assert config["data"]["seed"] == 7
    assert (config["format"], config["name"]) == (2, "shapes_cnn")


def test_order_and_characters_are_kept() -> None:
    config = compose_config("+logger.web._target_=some.Logger", "+logger.web.title='Größe'")
    assert list(config)[:4] == ["format", "name", "seed", "threads"]
    assert "Größe" in to_yaml(config)


def test_numbers_as_keys_and_nan_are_kept() -> None:
    config = compose_config("+callbacks.mine={_target_: some.Class, weights: {0: 1.0, 1: 3.0}, limit: nan}")
    mine = config["callbacks"]["mine"]
    assert (mine["weights"], str(mine["limit"])) == ({0: 1.0, 1: 3.0}, "nan")
    assert diff(from_yaml(to_yaml(config)), config) == {}


def test_a_group_that_is_left_out_is_null() -> None:
    config = compose_config("~model", "~optimizer", "~schedule", "~callbacks", "~logger", "name=without")
    for group in ("model", "optimizer", "schedule", "callbacks", "logger"):
        assert config[group] is None
    assert from_yaml(to_yaml(config)) == config


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"devices": 1, "accelerator": "auto"}, num_cores()),
        ({"devices": 2, "accelerator": "cpu"}, max(1, num_cores() // 2)),
        ({"devices": [0], "accelerator": "gpu"}, num_cores()),
        ({"devices": 10**6, "accelerator": "cpu"}, 1),
        ({"devices": "auto", "accelerator": "cpu"}, num_cores()),
        ({"devices": "auto", "accelerator": "gpu"}, None),
        ({"devices": -1, "accelerator": "auto"}, None),
    ],
)
def test_threads_are_cores_over_ranks(trainer: dict[str, object], expected: int | None) -> None:
    assert threads_per_rank(trainer) == expected


def test_threads_are_frozen() -> None:
    assert compose_config("trainer.devices=1")["threads"] == num_cores()
    assert compose_config("threads=3")["threads"] == 3
    assert compose_config("trainer=ddp")["threads"] is None, "the worker counts the devices"


def test_freezing_changes_neither_environment_nor_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    compose_config(*TINY)
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_paths_of_data_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    data = compose_config("data=image_folder", "data.root=images", "data.cache='~/cache'")["data"]
    assert (data["root"], data["cache"]) == (str(tmp_path / "images"), "/home/somebody/cache")


def test_omegaconf_reads_the_hydra_record_as_it_was_written(loader: ConfigLoader) -> None:
    """OmegaConf takes more texts for numbers than YAML does, so these stand in quotes."""
    texts = ["1e-3", "on", "Y", "0x1f", "1_000", "null", "${seed}", "'", "a: b", "nan", ".5", "é", "", "~", "12:30"]
    composed = loader.load_configuration(ROOT, [*TINY], RunMode.RUN)
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        composed.mine = {"texts": texts, "others": [1e-3, 0.1, None, True, 3]}
        del composed["hydra"]
    again = OmegaConf.create(hydra_record(composed)["config.yaml"])
    assert OmegaConf.to_container(again) == OmegaConf.to_container(composed)
