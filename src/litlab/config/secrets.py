"""Secrets: configs and records of command lines hold references to environment variables, never values."""

import os
import re
from collections.abc import Iterator
from typing import Any

from litlab.config.tree import Config, join, map_values, walk
from litlab.errors import UserError
from litlab.runs.redact import MASK, has_credentials, is_secret_key, mask_command, register_secrets

_MIN_LENGTH = 8  # characters; a shorter value may occur in another one by chance
_REFERENCE = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*\}")  # a default would be the secret


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
    unresolved = dict(walk(raw))
    secrets: set[str] = set()

    def keep(key: str, value: Any) -> Any:
        if not _is_secret_value(key, value) or key.endswith("._target_"):
            return value
        reference = unresolved.get(key)
        if is_literal(value) and (not isinstance(reference, str) or is_literal(reference)):
            raise _literal_error(key)
        if not isinstance(reference, str):
            return value
        if reference != value and len(str(value)) >= _MIN_LENGTH:
            secrets.add(str(value))
        return reference

    kept: Config = map_values(keep, resolved)
    for key, text in walk(kept):
        if isinstance(text, str) and any(secret in text for secret in secrets):
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
        for secret_key, value in _secret_values(override.key_or_group, override.value()):
            if is_literal(value):
                raise _literal_error(secret_key)


def refuse_secret_literals(raw: Any) -> None:
    """Refuse secrets in an unresolved config, Hydra's own keys included.

    Raises:
        UserError: For the first key whose secret is written out.
    """
    for (key, value), (_, masked) in zip(walk(raw), walk(mask_secrets(raw)), strict=True):
        if masked is not value and not isinstance(value, dict | list):  # not !=, since NaN is not equal to itself
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


def mask_secrets(raw: Any) -> Any:
    """Return a copy of an unresolved config in which secrets that are written out are masked."""
    return map_values(lambda key, value: MASK if _is_secret_value(key, value) and is_literal(value) else value, raw)


def _literal_error(key: str) -> UserError:
    return UserError(
        f"{key}: looks like a secret, and a run directory is made to be shared. "
        f"Put the value into an environment variable and write '${{oc.env:NAME}}'"
    )


def _is_secret_value(key: str, value: Any) -> bool:
    return is_secret_key(key) or (isinstance(value, str) and has_credentials(value))


def _resolve(key: str, value: Any) -> Any:
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if reference is None:
        return value
    if reference["name"] not in os.environ:
        raise UserError(f"{key}: cannot be resolved: there is no environment variable {reference['name']}; set it")
    register_secrets([os.environ[reference["name"]]])
    return os.environ[reference["name"]]


def _secret_values(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of the secrets in a value as Hydra's override parser returns it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _secret_values(join(key, name), item)
    elif isinstance(value, list):
        for item in value:
            yield from _secret_values(key, item)
    elif hasattr(value, "list") or hasattr(value, "args"):  # a sweep over several values
        yield from _secret_values(key, [*getattr(value, "list", ()), *getattr(value, "args", ())])
    else:
        text = getattr(value, "text", value)  # of a quoted string
        if _is_secret_value(key, text):
            yield key, text
