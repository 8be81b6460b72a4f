"""How often each thing is tried, and the table of what came of it.

A row is a name; tests carry it as `@pytest.mark.row(NAME)`. Each test is one trial of its row, unless it counts several
itself, by the fixture `tally`. So a row's numbers are of all tests that carry its name, over all processes of xdist.
"""

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.thorough import THOROUGH

FILE = "LITLAB_RELIABILITY"  # environment: where the table goes, with LITLAB_THOROUGH=1
_PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "tensorboard", "litlab")


def times(short: int, whole: int) -> int:
    """How often, in `make test` and in `make torture`."""
    return whole if THOROUGH else short


def trials(short: int, whole: int) -> pytest.MarkDecorator:
    """Calls a test so many times, as trial `number`, from 0; trial 3 is the same in both."""
    return pytest.mark.parametrize("number", range(times(short, whole)))


in_torture = pytest.mark.skipif(not THOROUGH, reason="in make torture")


def register(config: pytest.Config) -> None:
    """Make the marker known, and the table be written at the end, by the process that prints the reports."""
    config.addinivalue_line("markers", "row(name): a row of the reliability table, which this test is a trial of")
    if not config.pluginmanager.has_plugin("reliability"):
        config.pluginmanager.register(sys.modules[__name__], "reliability")


class Tally:
    """How many trials one test made."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def count(self, passed: int, total: int, note: str = "") -> None:
        """To be called once, before the test asserts that all have passed. `note` stands behind the numbers."""
        self._properties.append(("reliability", (passed, total, note)))


def rows_of(reporter: pytest.TerminalReporter) -> dict[str, dict[str, Any]]:
    """Row name -> passed, total, seconds, notes, skipped; of this session, in the order of the files."""
    rows: dict[str, dict[str, Any]] = {}
    reports = [
        report for outcome in ("passed", "failed", "skipped", "error") for report in reporter.getreports(outcome)
    ]
    for report in sorted(reports, key=lambda report: getattr(report, "nodeid", "")):
        properties = dict(getattr(report, "user_properties", []))
        if "row" not in properties or not (report.when == "call" or report.outcome != "passed"):
            continue
        row = rows.setdefault(properties["row"], {"passed": 0, "total": 0, "seconds": 0.0, "notes": []})
        if report.skipped:
            row["notes"].append("skipped: " + report.longrepr[2].removeprefix("Skipped: "))
            continue
        passed, total, note = properties.get("reliability", (int(report.passed), 1, ""))
        row["passed"] += passed
        row["total"] += total
        row["seconds"] += report.duration
        row["notes"] += [note] if note else []
    return rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = rows_of(terminalreporter)
    if not rows:
        return
    width = max(map(len, rows))
    terminalreporter.section("reliability")
    for name, row in rows.items():
        terminalreporter.write_line(f"{name:{width}}  {_said(row)}")
    if THOROUGH and (file := os.environ.get(FILE)):
        Path(file).write_text("\n".join(_table(rows, terminalreporter)) + "\n", encoding="utf-8")


def _said(row: dict[str, Any]) -> str:
    counted = f"{row['passed']} of {row['total']}" if row["total"] else ""
    return "; ".join(filter(None, [counted, *dict.fromkeys(row["notes"])]))


def _table(rows: dict[str, dict[str, Any]], reporter: pytest.TerminalReporter) -> Iterator[str]:
    yield from ("# Reliability", "", "What `make torture` found; `make test` tries each of these a few times.", "")
    yield from ("| what | held | seconds |", "|---|---|---:|")
    for name, row in rows.items():
        yield f"| {name} | {_said(row)} | {row['seconds']:.0f} |"
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    arguments = shlex.join(reporter.config.invocation_params.args)
    yield ""
    yield f"- Machine: {_processor()}, {cores} cores, {platform.platform()}, Python {platform.python_version()}"
    yield f"- Packages: {packages}"
    yield f"- Date: {datetime.datetime.now(datetime.UTC).date()}; the seconds are the sums of those of the tests"
    yield f"- Command: `LITLAB_THOROUGH=1 {Path(sys.executable).name} -m pytest {arguments}`"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
