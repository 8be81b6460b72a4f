"""Configs from before there were some of the keys: they can still be read, and are the same experiments."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.runs import TINY, compose_config

from litlab.config.freeze import from_yaml, identity, to_yaml
from litlab.config.schema import SECTIONS
from litlab.config.validate import validate
from litlab.runs.directory import RunDirectory
from litlab.runs.later_keys import LATER_KEYS, with_later_keys, without_later_keys
from litlab.training.build import assemble

OLD = Path(__file__).with_name("config_of_before_speed.yaml")


def test_a_config_of_then_is_read_validated_and_built(tmp_path: Path) -> None:
    config = from_yaml(OLD.read_text())
    validate(config)
    assert assemble(config, rank=0).facts is not None
    (tmp_path / "config.yaml").write_bytes(OLD.read_bytes())
    assert RunDirectory(tmp_path).read_config() == config


def test_it_keeps_the_identity_that_is_on_record() -> None:
    known = "4d521e813c1547808f8e3fc963b0a0edb862b7d7d6cd2c1a56dd5ebb3cb87287"
    assert identity(yaml.safe_load(OLD.read_text())) == known
    assert identity(from_yaml(OLD.read_text())) == known


def test_it_is_the_same_experiment_as_one_that_is_made_now() -> None:
    assert identity(compose_config(*TINY)) == identity(from_yaml(OLD.read_text()))


@pytest.mark.parametrize("target", LATER_KEYS)
def test_each_is_a_key_whose_value_is_allowed(target: str) -> None:
    section, off = SECTIONS[target], LATER_KEYS[target]
    assert off.keys() <= section.model_fields.keys()
    with pytest.raises(ValidationError) as raised:
        section.model_validate(off)
    assert {each["type"] for each in raised.value.errors()} == {"missing"}  # those that have always been there


def test_what_is_on_counts_and_stays() -> None:
    config = compose_config(*TINY, "task.channels_last=true")
    assert with_later_keys(config) == config
    assert from_yaml(to_yaml(config)) == config
    assert without_later_keys(config)["task"]["channels_last"] is True
    assert identity(config) != identity(compose_config(*TINY))


def test_other_nodes_are_left_alone() -> None:
    config: dict[str, Any] = {"a": 1, "data": {"_target_": ["x"]}, "task": {"_target_": "other.Task"}, "seed": None}
    before = deepcopy(config)
    assert with_later_keys(config) == without_later_keys(config) == config == before
