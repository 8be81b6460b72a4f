"""Tests of the display of a multirun, on a terminal and without one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.ended_jobs import failed, job, succeeded

from litlab.runs.metrics import MetricsWriter
from litlab.sweep import display
from litlab.sweep.backends.base import Job
from litlab.sweep.display import Display, job_eta, multirun_eta

LONG = "0002_model-resnet18_optimizer.lr-0.1_data.batch_size-128_seed-3"


def test_a_line_for_each_event_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = job(tmp_path, "0000_lr-0.1", 0.5), job(tmp_path, "0001_lr-[red]10")

    with Display("study", 5, num_ended=2) as shown:
        shown.job_started(first)
        shown.job_started(second)
        shown.update(5)
        shown.job_ended(first, succeeded(0.6512), will_retry=False)
        shown.job_ended(second, failed("ValueError: \x1b[31mno\nmore"), will_retry=True)

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["study: 5 jobs, 2 of them before", "0000_lr-0.1: started", "0001_lr-[red]10: started"]
    assert lines[3] == (
        "0000_lr-0.1: completed: val/accuracy 65.12 %  "
        "[2 before, 1 completed, 1 running, 1 queued of 5; 0:00, 1:00 left]"
    )
    assert lines[4].startswith(
        "0001_lr-[red]10: failed: ValueError:  [31mno; it is tried again  [2 before, 1 completed, 2 q"
    )
    assert len(lines) == 5


def test_the_first_estimate_of_the_time_left_is_printed_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    running = job(tmp_path, "0000_lr-0.1")

    with Display("study", 3) as shown:
        shown.job_started(running)
        for epoch in range(3):
            now[0] += 6.0
            shown.update(3)
            writer = MetricsWriter(running.run.metrics)
            writer.append(epoch, 100 * (epoch + 1), {"val/accuracy": 0.5})
            writer.close()

    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["[0 completed, 1 running, 2 queued of 3; 0:12, 5:48 left]"]  # of 10 epochs of 12 s in each job


def test_a_broken_pipe_does_not_end_the_multirun(tmp_path: Path) -> None:
    script = """
import os, sys, time
from litlab.sweep.display import Display, job_eta, multirun_eta
with Display("study", 1) as shown:
    for _ in range(200):
        shown.print("x" * 1000)
        shown.update(1)
os.write(2, b"reached the end")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b"reached the end"
    assert process.returncode == 0


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_table_fits_the_terminal(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _on_terminal(columns, 20, [job(tmp_path, "0001_lr-0.1", 0.25, 0.5), job(tmp_path, LONG)], monkeypatch)

    lines = _table(text)
    assert all(len(line) <= columns for line in lines)
    assert lines[0] == "0 completed, 2 running, 7 queued of 9"
    assert re.fullmatch(r"0:00, \S+ left", lines[1])
    assert lines[2].split() == ["job", "epoch", "val/accuracy", "time"]
    assert re.fullmatch(r"0001_lr-0\.1 .* 2/10 +50\.00 % +0:00", lines[3])
    assert re.fullmatch(rf"0002_model-{'.*…' if columns < 140 else LONG[11:]} .* - +0:00", lines[4])
    assert ("━" in lines[3]) == (columns >= 80)
    assert len(lines) == 5


def test_more_jobs_than_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = [job(tmp_path, f"{number:04}_seed-{number}") for number in range(9)]

    lines = _table(_on_terminal(80, 10, running, monkeypatch))

    assert len(lines) == 3 + 5 + 1
    assert lines[-1] == "and 4 more"


def test_failures_stand_above_the_table_and_nothing_is_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _on_terminal(80, 20, [job(tmp_path, "0001_[bold]x")], monkeypatch, failing=job(tmp_path, "0002_lr-10"))

    assert "0002_lr-10: failed: ValueError: no\r\n" in text
    assert any(line.startswith("0001_[bold]x") for line in _table(text))
    assert "1 failed" in _table(text)[0]


def _on_terminal(
    columns: int, lines: int, running: list[Job], monkeypatch: pytest.MonkeyPatch, *, failing: Job | None = None
) -> str:
    """Return the output to a terminal of this size when the table is drawn once."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    monkeypatch.setattr(display, "REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the descriptors 0 to 2, which are pytest's
    monkeypatch.setenv("LINES", str(lines))
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        with Display("study", 9) as shown:
            for job in running:
                shown.job_started(job)
            if failing:
                shown.job_started(failing)
                shown.job_ended(failing, failed("ValueError: no"), will_retry=False)
            shown.update(9)
        received = b""
        while b"\x1b[?25h" not in received:  # the cursor is shown again
            received += os.read(reader, 1 << 16)
    os.close(reader)
    return received.decode()


def _table(text: str) -> list[str]:
    """Return the lines of the last drawing, without colors."""
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)
    return [line.rstrip() for line in plain[plain.rindex("0 completed") :].splitlines() if line.strip()]


def test_multirun_eta() -> None:
    assert multirun_eta([], [(10.0, None)], 3, 2) is None
    assert multirun_eta([100.0], [(40.0, None), (90.0, None)], 0, 2) == 60.0  # the longest of those that run
    assert multirun_eta([100.0], [(50.0, None), (50.0, None)], 4, 2) == 250.0
    assert multirun_eta([], [(50.0, 50.0), (50.0, 150.0)], 2, 2) == (200 + 2 * 150) / 2
    assert multirun_eta([100.0], [(900.0, None)], 0, 1) == 0.0


def test_job_eta() -> None:
    assert job_eta(10.0, 0.0, 0.5) == 10.0
    assert job_eta(10.0, 0.8, 0.9) == pytest.approx(10.0)
    assert job_eta(10.0, 0.8, 0.805) is None
    assert job_eta(10.0, None, None) is None
