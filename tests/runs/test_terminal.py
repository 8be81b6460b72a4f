"""Text for a terminal, and a stream that survives it."""

import subprocess
import sys

from litlab.runs.terminal import format_clock, format_duration, format_value, headline

WRITER = """
import sys
from litlab.runs.terminal import FaultTolerantStream
sys.stdout = FaultTolerantStream(sys.stdout)
for number in range(20000):
    print("line", number, flush=number % 2 == 0)
print("done", file=sys.stderr)
"""


def test_a_broken_pipe_is_no_error() -> None:
    command = [sys.executable, "-c", WRITER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == "done\n"
    assert process.returncode == 0


def test_durations_below_a_second_have_one_digit() -> None:
    durations = [format_duration(seconds) for seconds in (0.0, 0.04, 0.43, 0.96, 61.0)]
    assert durations == ["0:00", "0.04 s", "0.4 s", "0:01", "1:01"]


def test_format_clock() -> None:
    clocks = [format_clock(seconds) for seconds in (None, 0.4, 59.6, 3599.0, 3661.0)]
    assert clocks == ["-", "0:00", "1:00", "59:59", "1:01:01"]


def test_headline_is_the_exception() -> None:
    assert headline('  File "/my/net.py", line 3, in f\n    x()\nValueError: no') == "ValueError: no"
    assert headline("data.root does not exist\nmore") == "data.root does not exist"
    assert headline("") == ""


def test_values_are_short_and_printable() -> None:
    assert format_value(None) == "null"
    assert format_value("a\x1b[31mb\n") == r"a\x1b[31mb\n"
    assert len(format_value("a" * 100)) == 48
    assert format_value("0123456789abcdef" * 4) == "0123456789ab"
