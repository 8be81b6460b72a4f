"""Text for a terminal: single-line messages, durations, paths, and a stream that survives the terminal."""

import json
import os
import re
from pathlib import Path
from typing import Any, TextIO

MAX_VALUE_LENGTH = 48  # characters of a value in a table
_HASH = re.compile(r"[0-9a-f]{40,64}")


def printable(line: str) -> str:
    """Replace the characters that would move the cursor or change colors by spaces."""
    return "".join(character if character.isprintable() else " " for character in line)


def headline(message: str) -> str:
    """Shorten a message to one line: the exception, without the stack frames above it."""
    lines = [line for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    return printable(lines[-1] if lines[0].lstrip().startswith('File "') else lines[0])


def format_value(value: Any) -> str:
    """Format any value on one line: control characters escaped, a hash by its first digits, long texts cut."""
    text = value_to_text(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    if _HASH.fullmatch(text):
        return text[:12]
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"


def value_to_text(value: Any) -> str:
    """Write a value as configs do: `[6,16]`, `true`."""
    if isinstance(value, list | dict | bool) or value is None:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    return str(value)


def format_duration(seconds: float) -> str:
    """Format a duration as `format_clock` does; below a second as `0.4 s`."""
    return f"{seconds:.1g} s" if 0 < seconds < 0.95 else format_clock(seconds)


def format_clock(seconds: float | None) -> str:
    """Format seconds as m:ss or h:mm:ss, unknown ones as "-"."""
    if seconds is None:
        return "-"
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{remainder:02}" if hours else f"{minutes}:{remainder:02}"


def display_path(path: Path) -> Path:
    """Make a path relative to the working directory if it lies below it."""
    cwd = Path.cwd()
    return path.relative_to(cwd) if path.is_relative_to(cwd) else path


class FaultTolerantStream:
    """A text stream that discards its output once it cannot be written to, as after the terminal is closed."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream that has a file descriptor."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or discard it if that fails."""
        try:
            return self._stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Flush the buffer, or discard it if that fails."""
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self) -> None:
        """Point the descriptor at /dev/null: buffered text is written at exit, where it would raise again."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
