"""Which names and addresses carry secrets, and texts without them."""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "***"
SHORTEST = 4  # characters: shorter values are too likely to stand in a text by chance

_SECRET = re.compile(
    r"(^|_)(token|secrets?|passwords?|passphrases?|passwd|pwd|bearer|auth|authorization|"
    r"(api|access|private)_?keys?|credentials?)($|_)",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"(^|_)(sig|signature|key)($|_)", re.IGNORECASE)  # as in the query of a presigned address
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_USER = re.compile(r"(\w://)[^/?#\s\"'<>]+@")  # up to the last @: a password may hold one
_QUERY = re.compile(r"([?&])([\w.%-]+)=([^&#\s\"'<>]+)")
_CONFIG = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".sh", ".env")
_KEY = r"""(?<![\w.-])(?P<key>[A-Za-z_][\w.-]*)["']?[ \t]*[:=][ \t]*"""
_TYPE = r"""(?:[\w.]+[ \t]*=[ \t]*)?"""  # token: str = "..."
_QUOTED = re.compile(_KEY + _TYPE + r"""(?P<quote>["'])(?P<value>(?:(?!(?P=quote)).)+)(?P=quote)""")
_PLAIN = re.compile(_KEY + r"""(?P<value>[^\s"'#{}\[\],]+)""")
_known: set[str] = set()
_NO_SECRETS = ("null", "none", "true", "false", "~", MASK)


def is_secret(key: str) -> bool:
    """Whether a key looks like one whose value must not be written down."""
    return bool(_SECRET.search(_HUMP.sub("_", key.replace("-", "_"))))


def has_credentials(text: str) -> bool:
    """Whether a text holds an address with a password or a token in it."""
    return mask_addresses(text) != text


def mask_addresses(text: str) -> str:
    """A text in which `user:password@` and the secret parameters of addresses are masked."""
    return _QUERY.sub(_masked_parameter, _USER.sub(rf"\1{MASK}@", text))


def mask_command(words: list[str]) -> list[str]:
    """A command line without the values of secret keys, and without credentials in addresses."""
    return [_masked_word(word) for word in words]


def mask_source(text: str, suffix: str) -> str:
    """A source without what looks like a literal secret: `password: hunter2`, `api_key="hunter2"`.

    Outside of configs only quoted values are taken for literals: `token: str` declares a type.
    """
    for pattern in (_QUOTED, _PLAIN) if suffix in _CONFIG else (_QUOTED,):
        text = pattern.sub(_masked_value, text)
    return mask_addresses(text)


def mask_diff(text: str) -> str:
    """The same for a diff by git, file by file."""
    suffix, masked = "", []
    for line in text.splitlines(keepends=True):
        if line.startswith(("+++ ", "--- ")):
            suffix = "." + line.rstrip().rpartition(".")[2]
        masked.append(mask_source(line, suffix))
    return "".join(masked)


def keep_out(values: Iterable[str]) -> None:
    """Let `redact` know secrets that this process has got to know. Those of under `SHORTEST` characters can't be told
    from other text."""
    for value in values:
        for each in (value, *parts_of_address(value)):
            if len(each) >= SHORTEST:
                _known.add(each)


def redact(text: str) -> str:
    """A text without the secrets that this process knows, and without credentials in addresses.

    For messages, which quote what they were given.
    """
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    return mask_addresses(text)


def redact_all(value: Any) -> Any:
    """`redact` for all texts in dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(redact_all(item) for item in value)
    return redact(value) if isinstance(value, str) else value


class RedactingFormatter(logging.Formatter):
    """Log lines, tracebacks included, through `redact`."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def parts_of_address(address: str) -> Iterator[str]:
    """What is secret in an address: the password by itself, or a parameter's value, may be quoted alone."""
    for found in _USER.finditer(address):
        user = found[0].partition("://")[2].removesuffix("@")
        yield user
        yield user.rpartition(":")[2]
    yield from (each[3] for each in _QUERY.finditer(address) if _secret_parameter(each[2]))


def _secret_parameter(name: str) -> bool:
    return is_secret(name) or bool(_SIGNED.search(name.replace("-", "_")))


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if _secret_parameter(found[2]) else found[0]


def _masked_value(found: re.Match[str]) -> str:
    key, value = found["key"], found["value"]
    if not is_secret(key.rpartition(".")[2]) or value.startswith("$") or value.lower() in _NO_SECRETS:
        return found[0]
    start = found.start("value") - found.start()
    return found[0][:start] + MASK + found[0][start + len(value) :]


def _masked_word(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and any(is_secret(part) for part in re.split(r"[./@]", key.lstrip("+~"))) and not value.startswith("${"):
        return f"{key}={MASK}"
    return mask_source(word, ".yaml")
