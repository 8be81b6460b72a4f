"""Secrets: a frozen config holds references to them, never their values."""

import re
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.errors import UserError

Config = dict[str, Any]
_SECRET = re.compile(
    r"(^|_)(token|secrets?|passwords?|passphrases?|passwd|pwd|bearer|auth|authorization|"
    r"(api|access|private)_?keys?|credentials?)($|_)",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REFERENCE = re.compile(r"^\$\{oc\.env:[^},]+\}$")  # with a default, that would be the secret
_WITH_CREDENTIALS = re.compile(r"\w+://[^/?#\s@]+@")


def is_secret(key: str) -> bool:
    """Whether a key looks like one whose value must not be written down."""
    return bool(_SECRET.search(_HUMP.sub("_", key)))


def keep_references(resolved: Config, raw: Any) -> Config:
    """Put the reference back where a key, or one above it, looks like a secret, or a URL holds credentials.

    Args:
        resolved: the config with all interpolations replaced.
        raw: the same config before that.

    Raises:
        UserError: if such a value is not a reference to an environment variable.
    """
    kept: Config = _kept(resolved, raw, "", False)
    return kept


def with_secrets(config: Config) -> Config:
    """A copy in which `${oc.env:NAME}` has been replaced by the environment's value: in memory only.

    Raises:
        UserError: if the environment has no such variable.
    """
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(unresolvable(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _kept(value: Any, raw: Any, path: str, secret: bool) -> Any:
    if isinstance(value, dict):
        raw = raw if isinstance(raw, dict) else {}
        return {
            key: item
            if key == "_target_"
            else _kept(item, raw.get(key), f"{path}.{key}", secret or is_secret(str(key)))
            for key, item in value.items()
        }
    if isinstance(value, list):
        raw = raw if isinstance(raw, list) else []
        padded = raw + [None] * (len(value) - len(raw))
        return [_kept(item, padded[i], f"{path}.{i}", secret) for i, item in enumerate(value)]
    if secret or (isinstance(value, str) and _WITH_CREDENTIALS.search(value)):
        return _reference(value, raw, path)
    return value


def _reference(value: Any, raw: Any, path: str) -> Any:
    if value is None or isinstance(value, bool):  # `token: true` says whether to use one
        return value
    if isinstance(raw, str) and _REFERENCE.match(raw):
        return raw
    raise UserError(
        f"{path.lstrip('.')}: looks like a secret, and a run directory is made to be shared. "
        f"Put the value into an environment variable and write '${{oc.env:NAME}}'"
    )


def unresolvable(error: OmegaConfBaseException) -> str:
    """What to tell of a value that cannot be resolved: its key and why."""
    key = getattr(error, "full_key", None) or "config"
    return f"{key}: cannot be resolved: {str(error).splitlines()[0]}"
