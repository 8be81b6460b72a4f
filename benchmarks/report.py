"""The results as text: a table for the terminal or for docs/benchmarks.md, and the machine they are from."""

import math
import os
from collections.abc import Sequence
from statistics import mean, median, stdev

from benchmarks.harness import Row
from litlab.runs.provenance import describe_machine
from litlab.statistics.student_t import mean_interval

HEADER = ("what", "unit", "litlab", "against", "other", "litlab / other")
_NUMERIC = (False, False, True, False, True, True)
_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "pillow", "numpy")


def machine() -> str:
    """Describe processor, cores, versions and load of the machine in one line."""
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts['packages'][name]}" for name in _PACKAGES if name in facts["packages"])
    load = os.getloadavg()[0]
    return f"{facts['cores']} cores of {facts['processor']}; Python {facts['python']}, {versions}; load {load:.1f}"


def table(rows: Sequence[Row], *, markdown: bool) -> str:
    """Medians over the rounds, smallest and largest in brackets; a ratio is the median of the rounds' ratios.

    Rows of means have these instead, with their 95 % intervals in brackets, and no ratio.
    """
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    padded = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, _NUMERIC, strict=True)
        ]
        for line in lines
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, _NUMERIC, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    if row.is_mean:
        return (row.name, row.unit, _format_mean(row.ours), row.against, _format_mean(row.theirs), "")
    return (row.name, row.unit, _format(row.ours), row.against, _format(row.theirs), _format(row.ratios))


def _format(values: Sequence[float]) -> str:
    return f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))})" if values else ""


def _format_mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    center = mean(values)
    low, high = mean_interval(center, stdev(values) / math.sqrt(len(values)), len(values) - 1)
    return f"{center:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float) -> str:
    """Three digits where it is small, whole where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
