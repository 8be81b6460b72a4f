"""Text for a terminal: single-line messages, durations, paths."""

from pathlib import Path


def printable(line: str) -> str:
    """Replace the characters that would move the cursor or change colors by spaces."""
    return "".join(character if character.isprintable() else " " for character in line)


def headline(message: str) -> str:
    """Shorten a message to one line: the exception, without the stack frames above it."""
    lines = [line for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    return printable(lines[-1] if lines[0].lstrip().startswith('File "') else lines[0])


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
