"""Secrets: configs and records of command lines hold references to environment variables, never values."""

import os
import re
from collections.abc import Iterator
from typing import Any

from litlab.config.tree import Config, map_values, walk
from litlab.errors import UserError
from litlab.runs.redact import MASK, has_credentials, is_secret, mask_command, register_secrets

_MIN_LENGTH = 8  # characters; a shorter value may occur in another one by chance
_REFERENCE = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*\}")  # a default would be the secret


def is_secret_key(key: str) -> bool:
    """Return whether a part of a dotted key, a group or a package in an override looks like a secret."""
    return any(is_secret(part) for part in re.split(r"[./@]", key.lstrip("+~")))


def is_literal(value: Any) -> bool:
    """Return whether the value of a secret key is written out instead of being a reference.

    Null and booleans are not secrets: `token: true` says whether to use one.
    """
    return not (value is None or isinstance(value, bool) or (isinstance(value, str) and _REFERENCE.fullmatch(value)))


def keep_references(resolved: Config, raw: Any) -> Config:
    """Put the reference back where a key, or one above it, looks like a secret, or a URL holds credentials.

    Args:
        resolved: Config in which all interpolations are replaced.
        raw: The same config before that.

    Raises:
        UserError: If such a value is not a reference to an environment variable, or occurs in another key as well.
    """
    kept: Config = _kept(resolved, raw, "", False)
    pairs = [(reference, value) for (_, reference), (_, value) in zip(walk(kept), walk(resolved), strict=True)]
    values = [str(value) for reference, value in pairs if reference != value and not isinstance(value, dict | list)]
    values = [value for value in values if len(value) >= _MIN_LENGTH]
    for key, text in walk(kept):
        if isinstance(text, str) and any(value in text for value in values):
            raise UserError(
                f"{key}: holds the value of a secret, and a run directory is made to be shared; leave it out"
            )
    return kept


def resolve_secrets(config: Config) -> Config:
    """Return a copy in which the environment's value replaces each `${oc.env:NAME}`; for use in memory only.

    `litlab.runs.redact.redact` masks these values from then on. Other interpolations stay texts.

    Raises:
        UserError: If the environment has no such variable.
    """
    resolved: Config = map_values(_resolve, config)
    return resolved


def refuse_secret_arguments(arguments: list[str]) -> None:
    """Refuse secrets on a command line in Hydra's grammar, before a multirun writes it down.

    Raises:
        UserError: For the value of a key that looks like a secret, and for a URL with credentials.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # slow, and workers don't need it
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException:
            continue  # an option, or what Hydra itself will refuse
        key = override.key_or_group
        for place, value in _secret_values(override.value(), key, is_secret_key(key)):
            if is_literal(value):
                raise _literal_error(place)


def refuse_secret_literals(raw: Any) -> None:
    """Refuse secrets in an unresolved config, Hydra's own keys included.

    Raises:
        UserError: For the first key whose secret is written out.
    """
    for (key, value), (_, masked) in zip(walk(raw), walk(mask_secrets(raw)), strict=True):
        if value != masked and not isinstance(value, dict | list):
            raise _literal_error(key)


def mask_arguments(arguments: list[str]) -> list[str]:
    """Return a command line in which secrets are masked; references stay, so that it can be called again."""

    def mask(argument: str) -> str:
        try:
            refuse_secret_arguments([argument])
        except UserError:
            return mask_command([argument])[0]
        return argument

    return list(map(mask, arguments))


def mask_secrets(raw: Any, *, is_secret_value: bool = False) -> Any:
    """Return a copy of an unresolved config in which secrets that are written out are masked."""
    if isinstance(raw, dict):
        return {
            key: mask_secrets(value, is_secret_value=is_secret_value or is_secret_key(str(key)))
            for key, value in raw.items()
        }
    if isinstance(raw, list):
        return [mask_secrets(value, is_secret_value=is_secret_value) for value in raw]
    is_hidden = is_literal(raw) if is_secret_value else isinstance(raw, str) and has_credentials(raw)
    return MASK if is_hidden else raw


def _literal_error(key: str) -> UserError:
    return UserError(
        f"{key}: looks like a secret, and a run directory is made to be shared. "
        f"Put the value into an environment variable and write '${{oc.env:NAME}}'"
    )


def _kept(value: Any, raw: Any, key: str, is_secret_value: bool) -> Any:
    if isinstance(value, dict):
        raw = raw if isinstance(raw, dict) else {}
        return {
            name: item
            if name == "_target_"
            else _kept(item, raw.get(name), f"{key}.{name}", is_secret_value or is_secret(str(name)))
            for name, item in value.items()
        }
    if isinstance(value, list):
        raw = raw if isinstance(raw, list) else []
        padded = raw + [None] * (len(value) - len(raw))
        return [_kept(item, padded[index], f"{key}.{index}", is_secret_value) for index, item in enumerate(value)]
    if is_secret_value or (isinstance(value, str) and has_credentials(value)):
        if is_literal(value) and (not isinstance(raw, str) or is_literal(raw)):
            raise _literal_error(key.lstrip("."))
        return raw if isinstance(raw, str) else value
    return value


def _resolve(key: str, value: Any) -> Any:
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if reference is None:
        return value
    if reference["name"] not in os.environ:
        raise UserError(f"{key}: cannot be resolved: there is no environment variable {reference['name']}; set it")
    register_secrets([os.environ[reference["name"]]])
    return os.environ[reference["name"]]


def _secret_values(value: Any, key: str, is_secret_value: bool) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of the secrets in a value as Hydra's override parser returns it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _secret_values(item, f"{key}.{name}", is_secret_value or is_secret(str(name)))
    elif isinstance(value, list):
        for item in value:
            yield from _secret_values(item, key, is_secret_value)
    elif hasattr(value, "list") or hasattr(value, "args"):  # a sweep over several values
        yield from _secret_values([*getattr(value, "list", ()), *getattr(value, "args", ())], key, is_secret_value)
    else:
        text = getattr(value, "text", value)  # of a quoted string
        if is_secret_value or (isinstance(text, str) and has_credentials(text)):
            yield key, text
