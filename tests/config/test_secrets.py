"""Secrets: references stay, literals are refused or masked, in configs and on command lines."""

import re

import pytest
from support.runs import compose_config

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.secrets import (
    mask_arguments,
    mask_secrets,
    refuse_secret_arguments,
    refuse_secret_literals,
    resolve_secrets,
)
from litlab.config.tree import get
from litlab.errors import UserError

LOGGER = ("+logger.web._target_=some.Logger", "+logger.web.api_key=${oc.env:LITLAB_TEST_KEY}")


@pytest.mark.parametrize(
    "argument",
    [
        "hydra.job.env_set.TOKEN=hunter2",
        "+logger.web.token=hunter2",
        "+logger.web.token=hunter2,hunter3",
        "+logger.web.token=choice(hunter2,hunter3)",
        "+logger.web.pin.password=range(1,3)",
        "+callbacks.x={_target_: a.B, inner: [{token: hunter2}]}",
        "+logger.web.token='${oc.env:X,hunter2}'",
        "data.url=https://me:hunter2@host/x",
        "data.url='https://host/x?token=hunter2'",
        "hydra.sweeper.storage='mysql://me:hunter2@host/db'",
    ],
)
def test_command_lines_with_secrets(argument: str) -> None:
    with pytest.raises(UserError, match=r"looks like a secret.*\$\{oc.env:NAME\}") as refused:
        refuse_secret_arguments(["-m", "seed=0,1", argument])
    assert "hunter" not in str(refused.value)
    assert str(refused.value).partition(":")[0] in argument or "x.inner.token" in str(refused.value)


def test_command_lines_without_secrets() -> None:
    refuse_secret_arguments(
        ["--config-dir", "conf", "-m", "lr=0.1,0.2", "hydra/launcher=basic", "+logger.web.token=${oc.env:X}",
         "~logger.web.token", "+logger.web.token=null", "+logger.web.use_auth=true",
         "data.url=https://host/x?v=1", "not hydra's", "a=[", ""]
    )  # fmt: skip


def test_literals_in_configs_are_masked_and_refused() -> None:
    raw = {
        "hydra": {"job": {"env_set": {"TOKEN": "hunter2"}}},
        "data": {"urls": ["https://me:hunter2@h", "https://h"]},
        "web": {"token": "${oc.env:X}", "auth": True},
    }
    assert mask_secrets(raw) == {
        "hydra": {"job": {"env_set": {"TOKEN": "***"}}},
        "data": {"urls": ["***", "https://h"]},
        "web": {"token": "${oc.env:X}", "auth": True},
    }
    with pytest.raises(UserError, match=r"^hydra\.job\.env_set\.TOKEN: looks like a secret"):
        refuse_secret_literals(raw)
    refuse_secret_literals(mask_secrets({"web": raw["web"]}))


def test_secrets_under_dotted_keys_are_found() -> None:
    params = {"params": {"+logger.wandb.api_key": "hunter22", "seed": "0,1"}}
    assert mask_secrets(params)["params"] == {"+logger.wandb.api_key": "***", "seed": "0,1"}
    with pytest.raises(UserError, match="api_key: looks like a secret"):
        refuse_secret_literals(params)


def test_masked_commands_keep_references() -> None:
    kept = ["-m", "+x.use_auth=true", "+x.token=null", "+x.api_key='${oc.env:T}'", "seed=0,1"]
    assert mask_arguments(kept) == kept
    assert mask_arguments(["+x.token=hunter22", "+x.at=https://me:hunter22@host"]) == [
        "+x.token=***", "+x.at=https://***@host",
    ]  # fmt: skip


def test_a_secret_stays_a_reference_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    config = compose_config(*LOGGER)
    assert config["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}"
    assert "hunter2" not in to_yaml(config)
    read = from_yaml(to_yaml(config))
    assert read["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}"
    assert resolve_secrets(read)["logger"]["web"]["api_key"] == "hunter2"
    assert read["logger"]["web"]["api_key"] == "${oc.env:LITLAB_TEST_KEY}", "a copy was resolved"


def test_only_references_to_the_environment_are_resolved() -> None:
    with pytest.raises(UserError, match="a: cannot be resolved: there is no environment variable LITLAB_NOT_THERE"):
        resolve_secrets({"format": 2, "a": "${oc.env:LITLAB_NOT_THERE}"})
    odd = {"a": "${oc.decode:1}", "b": "${oc.env:HOME,x}", "c": "x${oc.env:HOME}", "d": ["${hydra:runtime}"]}
    assert resolve_secrets(odd) == odd


def test_an_interpolation_to_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    with pytest.raises(UserError, match=r"logger\.web\.token: looks like a secret"):
        compose_config(*LOGGER, "+logger.web.token=${logger.web.api_key}")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+logger.web.api_key=hunter2", "logger.web.api_key"),
        ("+logger.web.api_key=${oc.env:LITLAB_TEST_NOTHING,hunter2}", "logger.web.api_key"),
        ("+logger.web.accounts=[{name: a}, {password: hunter2}]", "logger.web.accounts.1.password"),
        ("+logger.web.credentials={user: a, pin: hunter2}", "logger.web.credentials.user"),
        ("+logger.web.credentials=[hunter2]", "logger.web.credentials.0"),
        ("+logger.web.credentials=[{pin: hunter2}]", "logger.web.credentials.0.pin"),
        ("+logger.web.credentials=1234", "logger.web.credentials"),
        ("data.url='http://me:hunter2@host/x'", "data.url"),
    ],
)
def test_literal_secrets_are_refused(override: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(key)}: looks like a secret.*\$\{{oc\.env:NAME\}}") as refused:
        compose_config(LOGGER[0], override)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("data.url=${oc.env:LITLAB_TEST_URL}", "data.url", "${oc.env:LITLAB_TEST_URL}"),
        ("+logger.web.credentials={_target_: some.Login, pins: ['${oc.env:LITLAB_TEST_KEY}']}",
         "logger.web.credentials", {"_target_": "some.Login", "pins": ["${oc.env:LITLAB_TEST_KEY}"]}),
        ("+logger.web.api_key=null", "logger.web.api_key", None),
        ("+logger.web.api_key=true", "logger.web.api_key", True),
    ],
)  # fmt: skip
def test_references_null_and_booleans_are_kept(
    override: str, key: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITLAB_TEST_KEY", "hunter2")
    monkeypatch.setenv("LITLAB_TEST_URL", "http://me:hunter2@host/x")
    assert get(compose_config(LOGGER[0], override), key, "missing") == expected


def test_nan_is_no_secret() -> None:
    """It is not equal to itself."""
    refuse_secret_literals({"a": [float("nan"), {"b": float("nan")}], "c": float("nan")})
    with pytest.raises(UserError, match="token: looks like a secret"):
        refuse_secret_literals({"token": "hunter2"})
