"""Secrets that were written out, found before or beside the frozen config: on command lines, in Hydra's own keys."""

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from litlab.config.secrets import literal_refused, secret_literal
from litlab.errors import UserError
from litlab.masking import MASK, has_credentials, is_secret, mask_command


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
    for path in _differing(raw, masked(raw), ""):
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


def _differing(raw: Any, other: Any, path: str) -> Iterator[str]:
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, item in items:
        yield from _differing(item, other[key], f"{path}.{key}" if path else str(key))
    if not isinstance(raw, dict | list) and raw != other:
        yield path
