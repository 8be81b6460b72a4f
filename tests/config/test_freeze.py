"""The frozen config: plain, resolved, complete; secrets stay references."""

import os
from pathlib import Path

import pytest
import yaml
from support.runs import TINY, compose_config

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.freeze import threads_per_rank
from litlab.config.secrets import is_secret, resolve_secrets
from litlab.errors import UserError
from litlab.runs.provenance import num_cores

LOGGER = ("+logger.web._target_=some.Logger", "+logger.web.api_key=${oc.env:LITLAB_TEST_KEY}")


def test_it_is_plain_and_resolved() -> None:
    config = compose_config(*TINY, "seed=7", "trainer.max_epochs=5")
    assert yaml.safe_load(to_yaml(config)) == config
    assert from_yaml(to_yaml(config)) == config
    assert "${" not in to_yaml(config)
    assert config["data"]["seed"] == 7
    assert (config["format"], config["name"]) == (2, "shapes_cnn")


def test_it_keeps_the_order_of_the_yaml_and_characters_as_they_are() -> None:
    config = compose_config("+logger.web._target_=some.Logger", "+logger.web.title='Größe'")
    assert list(config)[:4] == ["format", "name", "seed", "threads"]
    assert "Größe" in to_yaml(config)


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


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "apikey",
        "token",
        "hf_token",
        "PASSWORD",
        "private_key",
        "secret",
        "credentials",
        "accessToken",
        "authorization",
        "auth",
        "passphrase",
        "webApiKey",
    ],
)
def test_keys_that_look_like_a_secret(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["tokens_per_batch", "num_tokens", "tokenizer", "key", "keys", "lr", "author", "passes"]
)
def test_keys_that_do_not(key: str) -> None:
    assert not is_secret(key)


def test_a_secret_stays_a_reference_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    config = compose_config(*LOGGER)
    assert config["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}"
    assert "hunter2" not in to_yaml(config)
    read = from_yaml(to_yaml(config))
    assert read["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}"
    assert resolve_secrets(read)["logger"]["web"]["api_key"] == "hunter2"
    assert read["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}", "a copy was resolved"


def test_a_secret_reached_by_another_key_stays_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    with pytest.raises(UserError, match=r"logger\.web\.token: looks like a secret"):
        compose_config(*LOGGER, "+logger.web.token=${logger.web.api_key}")


def test_an_absent_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    config = compose_config(*LOGGER)
    monkeypatch.delenv("LITLAB_TEST_KEY")
    with pytest.raises(UserError, match="LITLAB_TEST_KEY"):
        resolve_secrets(config)


def test_a_secret_written_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"logger\.web\.api_key: looks like a secret") as refused:
        compose_config(LOGGER[0], "+logger.web.api_key=hunter2")
    assert "hunter2" not in str(refused.value)
    assert "${oc.env:NAME}" in str(refused.value)


def test_a_secret_in_a_list_of_mappings_is_found() -> None:
    with pytest.raises(UserError, match=r"logger\.web\.accounts\.1\.password"):
        compose_config(LOGGER[0], "+logger.web.accounts=[{name: a}, {password: hunter2}]")


@pytest.mark.parametrize("value", ["{user: a, pin: hunter2}", "[hunter2]", "[{pin: hunter2}]", "1234"])
def test_all_below_such_a_key_is_secret(value: str) -> None:
    with pytest.raises(UserError, match=r"logger\.web\.credentials.*: looks like a secret") as refused:
        compose_config(LOGGER[0], f"+logger.web.credentials={value}")
    assert "hunter2" not in str(refused.value)


def test_references_below_such_a_key_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    config = compose_config(
        LOGGER[0], "+logger.web.credentials={_target_: some.Login, pins: ['${oc.env:LITLAB_TEST_KEY}']}"
    )
    assert config["logger"]["web"]["credentials"] == {"_target_": "some.Login", "pins": ["${oc.env:LITLAB_TEST_KEY}"]}


@pytest.mark.parametrize(("value", "expected"), [("null", None), ("true", True)])
def test_null_and_yes_or_no_are_no_secrets(value: str, expected: bool | None) -> None:
    assert compose_config(LOGGER[0], f"+logger.web.api_key={value}")["logger"]["web"]["api_key"] is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("format: 1\nseed: 0\n", "its format is 1: this version of litlab reads format 2 only"),
        ("format: null\n", "its format is None"),
        ("seed: 0\n", "not a config frozen by litlab"),
        ("- 1\n", "not a config frozen by litlab"),
        ("", "not a config frozen by litlab"),
        ("seed: [1\n", "not valid YAML"),
    ],
)
def test_other_formats_are_refused_in_a_sentence(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        from_yaml(text)


def test_environment_and_directory_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    compose_config(*TINY)
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_a_default_is_no_reference() -> None:
    with pytest.raises(UserError, match=r"logger\.web\.api_key: looks like a secret"):
        compose_config(LOGGER[0], "+logger.web.api_key=${oc.env:LITLAB_TEST_NOTHING,hunter2}")


def test_credentials_in_a_url_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"data\.url: looks like a secret") as refused:
        compose_config("data.url='http://me:hunter2@host/x'")
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("LITLAB_TEST_URL", "http://me:hunter2@host/x")
    assert compose_config("data.url=${oc.env:LITLAB_TEST_URL}")["data"]["url"] == "${oc.env:LITLAB_TEST_URL}"


def test_paths_of_data_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    data = compose_config("data=image_folder", "data.root=images", "data.cache='~/cache'")["data"]
    assert (data["root"], data["cache"]) == (str(tmp_path / "images"), "/home/somebody/cache")
