"""What a config may consist of, so that it can be written as YAML, read again and told from others."""

from typing import Any

from litlab.errors import UserError

MAX_DEPTH = 100  # levels; ours have five
MAX_VALUES = 100_000  # counting what aliases repeat: a few lines of YAML can name billions


def check_plain(config: Any) -> None:
    """
    Raises:
        UserError: if a config holds anything but nested dicts with texts as keys, lists, texts, numbers that fit into
            64 bits, true, false and null; or if it is too deep or too large.
    """
    count = 0
    pending: list[tuple[str, Any, int]] = [("", config, 0)]
    while pending:
        path, value, depth = pending.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            what = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_VALUES:,} values"
            raise UserError(
                f"{path[:80] or 'the config'}: there the config has more than {what}, which no config of a run has"
            )
        if problem := _problem(value):
            raise UserError(f"{path or 'the config'}: {problem}")
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            if isinstance(value, dict) and (not isinstance(key, str) or _problem(key)):
                raise UserError(f"{path or 'the config'}: has the key {_shown(key)}, expected a text; quote it")
            pending.append((f"{path}.{key}" if path else str(key), item, depth + 1))


def _problem(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{value[:40]!a} is no text that could be written as UTF-8"
    elif isinstance(value, int):
        return None if value.bit_length() <= 64 else "a number of more than 64 bits"
    elif not isinstance(value, float | dict | list | None):
        return f"found {_shown(value)}, expected a text, a number, true, false, null, a list or a mapping"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return f"the {type(value).__name__} {str(value)[:40]!a}"
