"""What is compared: runs, the groups that they form, and what is known of each group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from litlab.runs.state import RunStatus

LEVEL = 0.95  # of all confidence intervals
Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Objective:
    """What its config says a run is judged by; never a metric of the test."""

    metric: str
    mode: Mode


@dataclass(frozen=True)
class Run:
    """One run as its files tell it.

    Attributes:
        path: its directory.
        name: to be shown: where it is below what was asked for.
        study: the directory of its study; None for a single run.
        status: only runs that are COMPLETED are averaged.
        message: why it is not done.
        settings: every leaf of its config by its dotted name, without what has no effect on the result and
            without `seed`.
        choices: what its study sweeps, by the key as it was typed, with the value as a text: `model` -> `cnn`.
        data: fingerprint of its data; None if unknown.
        best: validation metrics where the objective was best.
        last: the last validation metrics.
        test: metrics of the test.
        training_seconds: spent in training, over all its processes.
        parameters: that its network has.
    """

    path: Path
    name: str
    study: Path | None
    status: RunStatus
    message: str
    seed: int | None
    settings: Mapping[str, Any]
    choices: Mapping[str, str]
    objective: Objective | None
    data: str | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    training_seconds: float | None = None
    images_per_second: float | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A directory that could not be used, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class Summary:
    """Of one metric over the seeds of a group.

    Attributes:
        num: how many runs have it; where --group has put settings together, how many seeds have it in all of them.
        deviation: sample standard deviation (n - 1) of the runs, or of the means of these seeds; None for one.
        low, high: Student's t interval for the mean at LEVEL, over the same; None for one, and where no seed has all
            of the settings that are put together.
        best: of the runs, by the mode of the metric.
    """

    num: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    best: float


@dataclass(frozen=True)
class Difference:
    """A group against the baseline, in the metric that is compared.

    Attributes:
        kind: `paired` over the seeds that both have, or `welch` where they share fewer than two.
        num: pairs; of `welch`, runs of the smaller of the two.
        mean: of the group minus that of the baseline.
        low, high: interval for it at LEVEL, not corrected; None where the runs are too few.
        p: two-sided, not corrected; None where the runs are too few.
        corrected: p by Holm over all groups that are compared.
        effect: standardised: Cohen's d of the pairs, or Hedges' g; None where there is no spread.
        needed: seeds a group with which a difference as large as the one seen would be found in 80 % of studies;
            None if it is told already, or can't be said.
    """

    kind: Literal["paired", "welch"]
    num: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    corrected: float | None
    effect: float | None
    needed: int | None


@dataclass(frozen=True)
class Group:
    """Runs that are the same experiment but for the seed.

    Attributes:
        name: the settings that vary, `lr=0.1 model=cnn`; `all runs` where none does.
        settings: label -> value as a text; the labels are those of the comparison, in their order; a setting that
            the group has not is left out.
        runs: those that are done and count, by seed: one a seed and setting.
        others: state -> how many runs are in it: counted, not averaged.
        value: of the metric that is compared; None if no run has it.
        test: the test metrics.
        seconds, images_per_second: of training; None if unknown.
        difference: from the baseline; None for the baseline itself or without one.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[Run, ...]
    others: Mapping[RunStatus, int]
    value: Summary | None
    test: Mapping[str, Summary]
    seconds: Summary | None
    images_per_second: Summary | None
    parameters: int | None
    difference: Difference | None = None


@dataclass(frozen=True)
class Comparison:
    """
    Attributes:
        directories: that were asked for.
        metric: that groups are ranked by, of the validation.
        at: where in a run it is taken: `best`, `last` or `epoch=N`.
        labels: short names of the settings that vary, in the order of their columns.
        keys: label -> full name of the key.
        groups: the best first; those without a value last.
        baseline: name of the group that others are compared with.
        ties: names of the groups whose interval reaches that of the best group (itself included).
        notes: what a reader has to know: runs that are left out, seeds that are there twice, too few seeds.
        skipped: directories that are damaged or none of ours.
        unfinished: runs that are not done, of all directories, whether or not they were filtered out.
    """

    directories: tuple[Path, ...]
    metric: str
    mode: Mode
    at: str
    labels: tuple[str, ...]
    keys: Mapping[str, str]
    groups: tuple[Group, ...]
    baseline: str | None
    ties: frozenset[str]
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    unfinished: tuple[Run, ...] = ()
