"""Redaction: names and URLs that carry secrets, and texts without them."""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "***"
MIN_LENGTH = 4  # characters: shorter values occur in a text by chance

_SECRET_NAME = re.compile(
    r"(^|_)(token|secrets?|passwords?|passphrases?|passwd|pwd|bearer|auth|authorization|"
    r"(api|access|private)_?keys?|credentials?)($|_)",
    re.IGNORECASE,
)
_SIGNATURE_NAME = re.compile(r"(^|_)(sig|signature|key)($|_)", re.IGNORECASE)  # in the query of a presigned URL
_KEY_SEPARATOR = re.compile(r"[./@+~]")  # in the key of an override
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_USER_INFO = re.compile(r"(\w://)[^/?#\s\"'<>]+@")  # up to the last @: a password may contain one
_PARAMETER = re.compile(r"([?&])([\w.%-]+)=([^&#\s\"'<>]+)")
_CONFIG_SUFFIXES = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".sh", ".env")
_KEY = r"""(?<![\w.-])(?P<key>[A-Za-z_][\w.-]*)["']?[ \t]*[:=][ \t]*"""
_TYPE = r"""(?:[\w.]+[ \t]*=[ \t]*)?"""  # token: str = "..."
_QUOTED_VALUE = re.compile(_KEY + _TYPE + r"""(?P<quote>["'])(?P<value>(?:(?!(?P=quote)).)+)(?P=quote)""")
_PLAIN_VALUE = re.compile(_KEY + r"""(?P<value>[^\s"'#{}\[\],]+)""")
_NO_SECRETS = ("null", "none", "true", "false", "~", MASK)
_registered: set[str] = set()


def is_secret(key: str) -> bool:
    """Tell whether the value of a key must not be written down, judging by the name of the key."""
    return bool(_SECRET_NAME.search(_CAMEL_CASE.sub("_", key.replace("-", "_"))))


def is_secret_key(key: str) -> bool:
    """Return whether a part of a dotted key, a group or a package in an override looks like a secret."""
    return any(map(is_secret, _KEY_SEPARATOR.split(key)))


def has_credentials(text: str) -> bool:
    """Tell whether a text holds a URL with a password or a token."""
    return mask_addresses(text) != text


def mask_addresses(text: str) -> str:
    """Mask `user:password@` and the secret parameters of the URLs in a text."""
    return _PARAMETER.sub(_mask_parameter, _USER_INFO.sub(rf"\1{MASK}@", text))


def mask_command(words: list[str]) -> list[str]:
    """Mask the values of secret keys, and credentials in URLs, in a command line."""
    return [_mask_word(word) for word in words]


def mask_source(text: str, suffix: str) -> str:
    """Mask literals that look like secrets in a source file: `password: hunter2`, `api_key="hunter2"`.

    Args:
        text: Content of the file.
        suffix: Suffix of its name. Except in configs only quoted values are literals: `token: str` declares a type.
    """
    for pattern in (_QUOTED_VALUE, _PLAIN_VALUE) if suffix in _CONFIG_SUFFIXES else (_QUOTED_VALUE,):
        text = pattern.sub(_mask_value, text)
    return mask_addresses(text)


def mask_diff(text: str) -> str:
    """Mask literals that look like secrets in a diff by git, as `mask_source` does for each file."""
    suffix, lines = "", []
    for line in text.splitlines(keepends=True):
        if line.startswith(("+++ ", "--- ")):
            suffix = "." + line.rstrip().rpartition(".")[2]
        lines.append(mask_source(line, suffix))
    return "".join(lines)


def register_secrets(values: Iterable[str]) -> None:
    """Register secrets of this process, so that `redact` masks them and the credentials in them.

    Values of fewer than `MIN_LENGTH` characters are ignored.
    """
    for value in values:
        _registered.update(part for part in (value, *_credentials(value)) if len(part) >= MIN_LENGTH)


def redact(text: str) -> str:
    """Mask registered secrets, and credentials in URLs, in a message, which may quote them."""
    for value in sorted(_registered, key=len, reverse=True):
        text = text.replace(value, MASK)
    return mask_addresses(text)


def redact_all(value: Any) -> Any:
    """Apply `redact` to all texts in dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(redact_all(item) for item in value)
    return redact(value) if isinstance(value, str) else value


class RedactingFormatter(logging.Formatter):
    """Log formatter that applies `redact` to each line, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record without secrets."""
        return redact(super().format(record))


def _credentials(url: str) -> Iterator[str]:
    """Yield the secret parts of a URL: a message may quote the password or a parameter alone."""
    for match in _USER_INFO.finditer(url):
        user_info = match[0].partition("://")[2].removesuffix("@")
        yield user_info
        yield user_info.rpartition(":")[2]
    yield from (match[3] for match in _PARAMETER.finditer(url) if _is_secret_parameter(match[2]))


def _is_secret_parameter(name: str) -> bool:
    return is_secret(name) or bool(_SIGNATURE_NAME.search(name.replace("-", "_")))


def _mask_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}={MASK}" if _is_secret_parameter(match[2]) else match[0]


def _mask_value(match: re.Match[str]) -> str:
    key, value = match["key"], match["value"]
    if not is_secret(key.rpartition(".")[2]) or value.startswith("$") or value.lower() in _NO_SECRETS:
        return match[0]
    start = match.start("value") - match.start()
    return match[0][:start] + MASK + match[0][start + len(value) :]


def _mask_word(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and is_secret_key(key) and not value.startswith("${"):
        return f"{key}={MASK}"
    return mask_source(word, ".yaml")
