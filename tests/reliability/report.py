"""Table of the reliability tests: how many trials of each row passed.

Tests name their row by `@pytest.mark.row(NAME)`. Each test is one trial of its row, unless it counts several by the
fixture `tally`. So a row has the numbers of all tests that name it, over all processes of xdist.
"""

import datetime
import os
import shlex
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.thorough import THOROUGH

from litlab.runs.provenance import describe_machine

FILE = "LITLAB_RELIABILITY"  # environment variable: file for the table, with LITLAB_THOROUGH=1
INTRODUCTION = """\
# Reliability

`make torture` tests interruptions and failures of whole runs, and writes this page. `make test`
runs a few trials of most rows.

"Identical result" means equal bits: checkpoints, rows of metrics.csv, TensorBoard events and
result.json equal those of an uninterrupted run, apart from durations.
"""
TABLES = {  # by the file of the tests: what stands before the table of its rows
    "test_multiruns": "Multiruns, with jobs that are forks of the pool's fork server:",
    "test_slurm": "Multiruns on a SLURM cluster of two virtual nodes, on the same machine:",
}
_WIDTH = 100  # of a line of text
_PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "tensorboard", "litlab")


def times(short: int, whole: int) -> int:
    """Return the number of trials, in `make test` or in `make torture`."""
    return whole if THOROUGH else short


def trials(short: int, whole: int) -> pytest.MarkDecorator:
    """Parametrize a test by the `number` of its trial, from 0; equal numbers are equal trials."""
    return pytest.mark.parametrize("number", range(times(short, whole)))


in_torture = pytest.mark.skipif(not THOROUGH, reason="in make torture")


def register(config: pytest.Config) -> None:
    """Register the marker, and the hook that prints the table."""
    config.addinivalue_line("markers", "row(name): a row of the reliability table, which this test is a trial of")
    if not config.pluginmanager.has_plugin("reliability"):
        config.pluginmanager.register(sys.modules[__name__], "reliability")


class Tally:
    """Counter of the trials of one test."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def count(self, passed: int, total: int, note: str = "") -> None:
        """Record the trials, before the test asserts that all passed; the note is printed after the numbers."""
        self._properties.append(("reliability", (passed, total, note)))


def rows_of(reporter: pytest.TerminalReporter) -> dict[str, dict[str, Any]]:
    """Collect the passed and total trials, seconds and notes of each row, in the order of the files."""
    rows: dict[str, dict[str, Any]] = {}
    reports = [
        report for outcome in ("passed", "failed", "skipped", "error") for report in reporter.getreports(outcome)
    ]
    for report in sorted(reports, key=lambda report: getattr(report, "nodeid", "")):
        properties = dict(getattr(report, "user_properties", []))
        if "row" not in properties or not (report.when == "call" or report.outcome != "passed"):
            continue
        row = rows.setdefault(properties["row"], {"passed": 0, "total": 0, "seconds": 0.0, "notes": []})
        row["file"] = Path(report.nodeid.partition("::")[0]).stem
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
        terminalreporter.write_line(f"{name:{width}}  {_format(row)}")
    if THOROUGH and (file := os.environ.get(FILE)):
        Path(file).write_text(_page(rows, shlex.join(terminalreporter.config.invocation_params.args)), encoding="utf-8")


def _format(row: dict[str, Any]) -> str:
    counted = f"{row['passed']} of {row['total']}" if row["total"] else ""
    return "; ".join(filter(None, [counted, *dict.fromkeys(row["notes"])]))


def _page(rows: dict[str, dict[str, Any]], arguments: str) -> str:
    """Return docs/reliability.md: single runs, multiruns, and the machine that ran them."""
    machine = describe_machine()
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    facts = (
        "- Machine: {processor}, {cores} cores, {system}, Python {python}".format_map(machine),
        f"- Packages: {packages}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date()}; seconds are summed over the tests of a row",
        f"- Command: `LITLAB_THOROUGH=1 {Path(sys.executable).name} -m pytest {arguments}`",
    )
    single = {name: row for name, row in rows.items() if row["file"] not in TABLES}
    parts = [INTRODUCTION, _table(single)]
    for file, title in TABLES.items():
        parts += [f"{title}\n", _table({name: row for name, row in rows.items() if row["file"] == file})]
    lines = [textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in facts]
    return "\n".join([*parts, *lines, ""])


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"| {name} | {_format(row)} | {row['seconds']:.0f} |\n" for name, row in rows.items()]
    return "".join(["| test | passed | seconds |\n|---|---|---:|\n", *lines])
