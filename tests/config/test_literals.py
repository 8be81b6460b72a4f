"""Secrets written out: on a command line, and in configs with Hydra's own keys."""

import pytest

from litlab.config.secrets import mask_arguments, mask_secrets, refuse_secret_arguments, refuse_secret_literals
from litlab.errors import UserError


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


def test_command_lines_without() -> None:
    refuse_secret_arguments(
        ["--config-dir", "conf", "-m", "lr=0.1,0.2", "hydra/launcher=basic", "+logger.web.token=${oc.env:X}",
         "~logger.web.token", "+logger.web.token=null", "+logger.web.use_auth=true",
         "data.url=https://host/x?v=1", "not hydra's", "a=[", ""]
    )  # fmt: skip


def test_whole_configs() -> None:
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


def test_a_command_can_be_called_again() -> None:
    kept = ["-m", "+x.use_auth=true", "+x.token=null", "+x.api_key='${oc.env:T}'", "seed=0,1"]
    assert mask_arguments(kept) == kept
    assert mask_arguments(["+x.token=hunter22", "+x.at=https://me:hunter22@host"]) == [
        "+x.token=***", "+x.at=https://***@host",
    ]  # fmt: skip
