"""Data classes of a comparison: runs, groups of runs, and their statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from litlab.runs.metrics import Metric, Mode
from litlab.runs.state import RunStatus


@dataclass(frozen=True)
class Objective:
    """Metric that a run is judged by according to its config; never one of the test split."""

    metric: str
    mode: Mode


@dataclass(frozen=True, order=True)
class Fold:
    """One fold of a k-fold cross-validation.

    Attributes:
        partition: What determines the images of the folds, as a text: only folds of one partition can be paired.
        number: Number of the fold, from 0.
    """

    partition: str
    number: int


Unit = int | Fold | None  # a seed or a fold; None: unknown


@dataclass(frozen=True)
class Variant:
    """The full recipe of an ablation, or the recipe with some of its changes.

    Attributes:
        names: Names of the changes that it has; none: the full recipe.
        overrides: Overrides of these changes, as they were typed.
        known: Names of all changes of the ablation.
    """

    names: tuple[str, ...]
    overrides: tuple[str, ...]
    known: frozenset[str]


@dataclass(frozen=True)
class Run:
    """A run as its files describe it.

    Attributes:
        path: Run directory.
        name: Name to show: the path below the directory that was named.
        study: Directory of its study; None for a single run.
        status: Only completed runs are averaged.
        message: Reason why it is not completed.
        fold: Fold that it was validated on; None without folds.
        settings: Leaves of its config by dotted names, without `seed`, the number of the fold and keys that do not
            affect the result.
        choices: Swept keys as they were typed, with the value as a text: `model` -> `cnn`.
        data: Fingerprint of its data; None if unknown.
        variant: Changes of an ablation that it has; None if it belongs to none.
        best: Validation metrics where the objective was best.
        device: Name of the GPU or of the processor that it trained on.
        precision: Precision that it trained in, which `trainer.precision=auto` leaves to the device.
        training_seconds: Time spent in training, over all its processes.
        ended: Time of its result.json in seconds, by which runs are ordered; 0 without one.
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
    fold: Fold | None = None
    data: str | None = None
    variant: Variant | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    training_seconds: float | None = None
    images_per_second: float | None = None
    device: str | None = None
    precision: str | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    ended: float = 0.0

    @property
    def is_completed(self) -> bool:
        """Return True for a run that trained to its end."""
        return self.status == RunStatus.COMPLETED

    @property
    def unit(self) -> Unit:
        """Unit of repetition in its group, which n counts: its fold, or else its seed."""
        return self.seed if self.fold is None else self.fold


def variant_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """Return the names of the changes that runs of one group of an ablation have; none for the full recipe."""
    return next((run.variant.names for run in runs if run.variant), ())


def overrides_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """Return the overrides of these changes."""
    return next((run.variant.overrides for run in runs if run.variant), ())


def unit_name(runs: Iterable[Run]) -> str:
    """Name the unit of repetition of runs: `seed`, `fold`, or `run` if some have none or they differ."""
    names = {"run" if run.unit is None else "seed" if run.fold is None else "fold" for run in runs} or {"seed"}
    return names.pop() if len(names) == 1 else "run"


@dataclass(frozen=True)
class Skipped:
    """A directory that could not be used."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Summary:
    """Statistics of a metric over the seeds or folds of a group.

    Attributes:
        num: Number of runs that have the metric; with `--group`, of seeds that have it in all settings; of folds, those
            that have it with all seeds.
        deviation: Sample standard deviation (n - 1) over these; None for a single one.
        low: Lower end of the confidence interval for the mean; None for a single run, and where no seed has all of the
            settings that `--group` averages over.
        high: Upper end.
        best: Best value of a run.
    """

    num: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    best: float

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the interval; without one, the mean twice."""
        return (self.mean, self.mean) if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Design:
    """Design of the tests of differences.

    Attributes:
        kind: `fixed`: tests of a number of seeds that was planned before anybody looked; `sequential`: tests that may
            be looked at after each seed.
        horizon: Planned number of seeds of a sequential test; None for an open end.
        reason: Clause that says why, for the caption; empty for folds.
        warning: Sentence on earlier tests of the same runs; empty without any.
        is_last: True if all planned seeds have ended, although some have no value.
    """

    kind: Literal["fixed", "sequential"]
    horizon: int | None = None
    reason: str = ""
    warning: str = ""
    is_last: bool = False

    @property
    def is_sequential(self) -> bool:
        """Return True for tests that may be looked at after each seed."""
        return self.kind == "sequential"


@dataclass(frozen=True)
class Difference:
    """Difference between a group and the baseline in the compared metric.

    Attributes:
        kind: `paired` over shared seeds or folds, or `welch` if there are fewer than two.
        num: Number of pairs; for `welch`, of runs of the smaller group.
        mean: Mean of the group minus that of the baseline.
        low: Lower end of the confidence interval, not corrected; None if there are too few runs or no spread. In a
            sequential design, the interval at this look of a confidence sequence.
        high: Upper end.
        p: Two-sided p-value, not corrected; in a sequential design, the smallest so far, which is valid at any time.
        corrected: Holm's p-value over all compared groups.
        effect: Cohen's d of the pairs, or Hedges' g.
        needed: Seeds a group that would find a true difference of this size in 80 % of studies of this design; None if
            it is significant already, or if that cannot be computed.
    """

    kind: Literal["paired", "welch"]
    num: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    effect: float | None = None
    needed: int | None = None


@dataclass(frozen=True)
class Interaction:
    """Effect of two changes of an ablation together, compared with the sum of their single effects.

    Attributes:
        together: Mean of both changes minus that of the full recipe, over the seeds or folds that all four have.
        total: Sum of the differences of the single changes from the full recipe, over the same ones.
        difference: The first minus the second, paired.
    """

    together: float
    total: float
    difference: Difference


@dataclass(frozen=True)
class Group:
    """Runs of the same experiment with different seeds or folds.

    Attributes:
        name: Settings that vary, `lr=0.1 model=cnn`; `all runs` if none varies.
        settings: Label -> value as a text, without settings that the group does not have.
        runs: Completed runs that count, sorted by seed: one for each seed and setting.
        others: Status -> number of runs that are not completed.
        value: Statistics of the compared metric; None if no run has it.
        seconds: Training time.
        parameters: Number of parameters; None if unknown or different between runs.
        trainable_parameters: The same of those that were not frozen at the end.
        difference: Difference from the baseline; None for the baseline itself.
        interaction: Interaction of the two changes of an ablation; None for other groups, or if no seed has all runs.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[Run, ...]
    others: Mapping[RunStatus, int]
    value: Summary | None
    test: Mapping[str, Summary]
    seconds: Summary | None = None
    images_per_second: Summary | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    difference: Difference | None = None
    interaction: Interaction | None = None

    @property
    def has_frozen_parameters(self) -> bool:
        """Return True if some of its parameters were not trained."""
        return self.trainable_parameters is not None and self.trainable_parameters != self.parameters

    @property
    def num_without_value(self) -> int:
        """Number of runs that have ended, but failed or diverged."""
        return sum(self.others.get(status, 0) for status in (RunStatus.FAILED, RunStatus.DIVERGED))

    @property
    def unit(self) -> str:
        """Name of its unit of repetition: `seed`, `fold` or `run`."""
        return unit_name(self.runs)

    @property
    def has_interval(self) -> bool:
        """Return True if the mean has a confidence interval."""
        return self.value is not None and self.value.low is not None


def best_group(groups: Sequence[Group], mode: Mode) -> Group | None:
    """Return the group with the best mean; None if no group has a value."""
    choose = max if mode == "max" else min
    means = [(group.value.mean, group) for group in groups if group.value]
    return choose(means, key=lambda pair: pair[0])[1] if means else None


@dataclass(frozen=True)
class Selection:
    """The best of several groups, and how much of its value is owed to being selected by it.

    Attributes:
        group: Name of the group.
        num_groups: Number of groups that it was selected from.
        lead: Distance of its mean from that of the second best group.
        value_bias: Part of its mean that is expected to be selection; negative by chance if it is small, and None if no
            group has two seeds.
        lead_bias: The same part of its lead.
        test: Mean of its test metric, by which nothing was selected; None if it is unknown.
    """

    group: str
    num_groups: int
    lead: float
    value_bias: float | None
    lead_bias: float | None
    test: float | None


@dataclass(frozen=True)
class Comparison:
    """Everything that `litlab compare` shows.

    Attributes:
        directories: Directories that were named.
        metric: Metric that groups are ranked by; its direction is known and its split is not test.
        test_metric: The same quantity on the test split.
        at: Place in a run: `best`, `last` or `epoch=N`.
        labels: Short names of the settings that vary, in the order of their columns.
        keys: Label -> full name of the key.
        groups: Groups in the order of the table.
        baseline: Name of the group that others are compared with.
        design: Design of the tests of differences from it.
        selection: Selection of the best group; None for a single group and for an ablation.
        ties: Names of the groups whose interval overlaps that of the best group (itself included).
        notes: Remarks for the reader: runs that are left out, duplicate seeds, too few seeds.
        skipped: Directories that are damaged or were not written by litlab.
        unfinished: Runs that are not completed, also those that a filter leaves out.
        pruned: Runs that a search pruned, without those that a filter leaves out.
        is_ablation: True if the groups are the changes of an ablation, and the baseline is its full recipe.
        pairs: Pairs of changes of an ablation, which are no groups of the table unless there are two changes only.
    """

    directories: tuple[Path, ...]
    metric: Metric
    test_metric: Metric
    at: str
    labels: tuple[str, ...]
    keys: Mapping[str, str]
    groups: tuple[Group, ...]
    baseline: str | None = None
    design: Design = Design("fixed")
    selection: Selection | None = None
    ties: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unfinished: tuple[Run, ...] = ()
    pruned: tuple[Run, ...] = ()
    is_ablation: bool = False
    pairs: tuple[Group, ...] = ()

    @property
    def all_groups(self) -> tuple[Group, ...]:
        """The groups of the table, then the pairs of an ablation."""
        names = {group.name for group in self.groups}
        return (*self.groups, *(pair for pair in self.pairs if pair.name not in names))

    @property
    def mode(self) -> Mode:
        """Direction of the compared metric."""
        assert self.metric.mode is not None
        return self.metric.mode

    @property
    def best(self) -> Group | None:
        """The group with the best mean; None if no group has a value."""
        return best_group(self.groups, self.mode)
