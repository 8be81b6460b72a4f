"""Secrets: a frozen config holds references to them, never their values."""

import os
import re
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from litlab.config.tree import Config, map_values, walk
from litlab.errors import UserError
from litlab.runs.redact import MASK, has_credentials, is_secret, keep_out, mask_command

_TELLING = 8  # characters; a shorter value may stand in another by chance
_REFERENCE = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*\}")  # a default would be the secret


def keep_references(resolved: Config, raw: Any) -> Config:
    """Put the reference back where a key, or one above it, looks like a secret, or an address holds credentials.

    Args:
        resolved: the config with all interpolations replaced.
        raw: the same config before that.

    Raises:
        UserError: if such a value is not a reference to an environment variable, or stands in another key as well.
    """
    kept: Config = _kept(resolved, raw, "", False)
    pairs = [(reference, value) for (_, reference), (_, value) in zip(walk(kept), walk(resolved), strict=True)]
    values = [str(value) for reference, value in pairs if reference != value and not isinstance(value, dict | list)]
    for path, text in walk(kept):
        if isinstance(text, str) and any(value in text for value in values if len(value) >= _TELLING):
            raise UserError(
                f"{path}: holds the value of a secret, and a run directory is made to be shared; leave it out"
            )
    return kept


def with_secrets(config: Config) -> Config:
    """A copy in which each `${oc.env:NAME}` has been replaced by the environment's value: in memory only.

    From then on `litlab.runs.redact.redact` knows these values. No other interpolation means anything in a frozen config:
    it stays the text that it is.

    Raises:
        UserError: if the environment has no such variable.
    """
    copy: Config = map_values(_resolved, config)
    return copy


def secret_literal(value: Any) -> bool:
    """Whether the value of a secret key is a literal; `token: true` says whether to use one."""
    return not (value is None or isinstance(value, bool) or (isinstance(value, str) and _REFERENCE.fullmatch(value)))


def unresolvable(error: OmegaConfBaseException) -> str:
    """What to tell of a value that cannot be resolved: its key and why."""
    key = getattr(error, "full_key", None) or "config"
    return f"{key}: cannot be resolved: {str(error).splitlines()[0]}"


def literal_refused(path: str) -> UserError:
    """What to tell of a secret that was written out."""
    return UserError(
        f"{path}: looks like a secret, and a run directory is made to be shared. "
        f"Put the value into an environment variable and write '${{oc.env:NAME}}'"
    )


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
    if secret or (isinstance(value, str) and has_credentials(value)):
        if secret_literal(value) and (not isinstance(raw, str) or secret_literal(raw)):
            raise literal_refused(path.lstrip("."))
        return raw if isinstance(raw, str) else value
    return value


def _resolved(path: str, value: Any) -> Any:
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    if found["name"] not in os.environ:
        raise UserError(f"{path}: cannot be resolved: there is no environment variable {found['name']}; set it")
    keep_out([os.environ[found["name"]]])
    return os.environ[found["name"]]


def refuse_literals(arguments: list[str]) -> None:
    """Look for secrets on a command line in Hydra's grammar, before a multirun writes that down.

    Raises:
        UserError: for the value of a key that looks like a secret, and for an address with credentials.
    """
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException:
            continue  # an option, or what Hydra itself will refuse
        path = override.key_or_group
        for place, value in _literals(override.value(), path, names_secret(path)):
            if secret_literal(value):
                raise literal_refused(place)


def masked_arguments(arguments: list[str]) -> list[str]:
    """A command line, for records of it, without literal secrets; references stay, so that it can be called again."""
    return [_masked_argument(each) for each in arguments]


def _masked_argument(argument: str) -> str:
    try:
        refuse_literals([argument])
    except UserError:
        return mask_command([argument])[0]
    return argument


def names_secret(key: str) -> bool:
    """Whether a dotted key, a group or a package in an override looks like a secret."""
    return any(is_secret(part) for part in re.split(r"[./@]", key.lstrip("+~")))


def refuse_written(raw: Any) -> None:
    """The same for a whole unresolved config, Hydra's own keys included.

    Raises:
        UserError: naming the first key.
    """
    for (path, value), (_, safe) in zip(walk(raw), walk(masked(raw)), strict=True):
        if value != safe and not isinstance(value, dict | list):
            raise literal_refused(path)


def masked(raw: Any) -> Any:
    """A copy of an unresolved config, for records of it, in which literal secrets are masked."""
    return _without_literals(raw, False)


def _without_literals(raw: Any, secret: bool) -> Any:
    if isinstance(raw, dict):
        return {key: _without_literals(item, secret or names_secret(str(key))) for key, item in raw.items()}
    if isinstance(raw, list):
        return [_without_literals(item, secret) for item in raw]
    hidden = secret_literal(raw) if secret else isinstance(raw, str) and has_credentials(raw)
    return MASK if hidden else raw


def _literals(value: Any, path: str, secret: bool) -> Iterator[tuple[str, Any]]:
    """What Hydra's parser found on the right of an override, as far as it is to be kept secret."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _literals(item, f"{path}.{key}", secret or is_secret(str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _literals(item, path, secret)
    elif hasattr(value, "list") or hasattr(value, "args"):  # a sweep over several
        yield from _literals([*getattr(value, "list", ()), *getattr(value, "args", ())], path, secret)
    else:
        text = value.text if isinstance(value, QuotedString) else value
        if secret or (isinstance(text, str) and has_credentials(text)):
            yield path, text
