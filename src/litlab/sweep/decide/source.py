"""Source of the jobs of a decide study: the runs that the decisions need next, each created when it starts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from litlab.config.schema import Objective
from litlab.config.tree import bare_key
from litlab.errors import UserError
from litlab.runs.files import as_number
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, Job
from litlab.sweep.decide.answer import Answer, find_metric, make_answer, write_answer
from litlab.sweep.decide.decisions import Decisions
from litlab.sweep.decide.record import FamilyRecord, Record, SettingRecord, read_record, seed_at, write_record
from litlab.sweep.decide.rounds import Family, Rule, Run
from litlab.sweep.decide.settings import SECTION, SEED, DecideSettings, Setting
from litlab.sweep.jobs import create_jobs, print_notes, record_resume
from litlab.sweep.outcome import Outcome, read_outcome
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob

Known = Mapping[str, tuple[int, str]]  # identity -> number and directory of a job of the study
Compose = Callable[[Setting, int, int, Known], "ComposedJob"]  # (setting, seed, next free number, known jobs) -> job


@dataclass(frozen=True)
class DecideSpec:
    """Specification of a decide study.

    Attributes:
        settings: Settings of the sweeper.
        candidates: Settings that are compared, by key: the identity of the config with the first seed.
        examples: Job of each with the first seed.
        baseline: Key of the baseline.
        skipped_seeds: Seeds that are not used.
        compose: Composes a job; raises UserError for one that can't be.
        provenance: Provenance of the command.
    """

    settings: DecideSettings
    candidates: dict[str, Setting]
    examples: dict[str, "ComposedJob"]
    objective: Objective
    baseline: str | None
    skipped_seeds: list[int]
    compose: Compose
    provenance: dict[str, Any]

    @property
    def rule(self) -> Rule:
        """Parameters of the decisions."""
        settings = self.settings
        return Rule(settings.alpha, settings.delta, self.objective.mode == "max", self.baseline is None)


def make_spec(
    settings: DecideSettings,
    candidates: Sequence[Setting],
    baseline: Setting | None,
    objective: Callable[[Config], Objective],
    skipped_seeds: list[int],
    compose: Compose,
    provenance: dict[str, Any],
) -> DecideSpec:
    """Make the specification of a decide study, after composing a job of each setting.

    Raises:
        UserError: If a setting can't be a job, or two are the same experiment.
    """
    by_key: dict[str, Setting] = {}
    examples: dict[str, ComposedJob] = {}
    for setting in candidates:
        job = compose(setting, seed_at(0, skipped_seeds), 0, {})  # an example, which needs no folder of its own
        if job.identity in by_key:
            other = by_key[job.identity].name
            raise UserError(f"{setting.name} and {other} are the same experiment; leave out one of them")
        by_key[job.identity], examples[job.identity] = setting, job
    key = next((key for key, setting in by_key.items() if setting is baseline), None)
    chosen = objective(next(iter(examples.values())).config)
    return DecideSpec(settings, by_key, examples, chosen, key, skipped_seeds, compose, provenance)


def check_growth(spec: DecideSpec, study: Study) -> Record | None:
    """Check that a command continues or extends what a study has recorded, and return that.

    Raises:
        UserError: If it would change what the error rate of the decisions depends on.
    """
    record = read_record(study.path)
    if record is None:
        if study.records:
            raise UserError(
                f"{study.path / 'families.json'} is missing: without it, it is not known what was tested before; "
                "bring it back, or choose another study.name"
            )
        return None
    settings, path = spec.settings, study.path
    for name in ("alpha", "alpha_reserve", "delta"):
        before, now = getattr(record, name), getattr(settings, name)
        if before != now:
            raise UserError(
                f"{path}: {SECTION}.{name} was {_text(before)} and can't become {_text(now)} after runs were looked "
                "at; use the previous value, or choose another study.name"
            )
    if settings.seeds_max < record.seeds_max:
        raise UserError(
            f"{path}: {SECTION}.seeds_max was {record.seeds_max} and can grow, but not become {settings.seeds_max}: "
            "the test is planned for a number of seeds; use the previous value, or choose another study.name"
        )
    if record.baseline != spec.baseline:
        name = record.settings[record.baseline].name if record.baseline in record.settings else "null"
        raise UserError(f"{path}: {SECTION}.baseline was {name}; use it, or choose another study.name for another one")
    if missing := [known.name for key, known in record.settings.items() if key not in spec.candidates]:
        raise UserError(
            f"{path} compares {', '.join(missing)} as well, which this command leaves out: the error rate is that of "
            "all settings that were ever compared; add what is missing, or choose another study.name"
        )
    return record


class DecideSource:
    """Source of the jobs of a decide study, which has to be locked.

    Args:
        spec: What is decided.
        study: Directory of its jobs.
        backend: Backend that will run the jobs.

    Attributes:
        started: Jobs that were handed out, by number.
        outcomes: Outcomes of those that have ended since, by number.
        error: Reason why the study can't continue; `next_job` raises it.

    Raises:
        UserError: If the record of the study is damaged, or is not of these settings.
    """

    is_adaptive = True

    def __init__(self, spec: DecideSpec, study: Study, backend: Backend) -> None:
        self.spec, self.study, self._backend = spec, study, backend
        self.started: dict[int, Job] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.error: UserError | None = None
        self._runs: dict[int, Run] = {}  # by number of the job
        self._unfinished: dict[Run, Job] = {}  # of an earlier command
        self._running: set[Run] = set()
        self._stopped: set[Run] = set()  # ended without an outcome; the next command resumes them
        self._waiting_job: Job | None = None  # created, but larger than the capacity
        self.record, self.decisions = open_decisions(spec, study)
        self._collect()
        self._grow()
        self._write()

    @property
    def total(self) -> int:
        """Number of runs, with those that may be needed."""
        return len(self.decisions.values) + self.decisions.num_left()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        names = {key: setting.name for key, setting in self.spec.candidates.items()}
        runs = [self.study.run_of(record) for record in self.study.records]
        return make_answer(
            self.decisions, names, self.spec.objective, find_metric(runs, self.spec.objective), len(runs)
        )

    def is_exhausted(self) -> bool:
        """Return True if no more jobs will come."""
        if self._running or self._waiting_job or self.error:
            return False
        return not self._startable()

    def next_job(self, has_capacity: Callable[[Config], bool]) -> Job | None:
        """Return the job of the run that is needed most, if there is capacity for it.

        Raises:
            UserError: If the study can't continue.
        """
        if self.error is not None:
            raise self.error
        if self._waiting_job is None and (runs := self._startable()):
            self._waiting_job = self._take(runs[0], has_capacity)
        job = self._waiting_job
        if job is None or not has_capacity(job.config):
            return None
        self._waiting_job = None
        self.started[job.number] = job
        return job

    def jobs_to_prune(self, running: Sequence[Job]) -> list[Job]:
        """Return nothing: pruning would remove seeds by their outcome."""
        return []

    def job_ended(self, job: Job, outcome: Outcome) -> None:
        """Note the outcome. An error is kept for `next_job`, since other jobs may end at the same time."""
        run = self._runs[job.number]
        self._running.discard(run)
        self.outcomes[job.number] = outcome
        if not _is_final(outcome):
            self._stopped.add(run)
            return
        self.decisions.values[run] = _value(outcome)
        try:
            self._stop_without_metric(outcome)
        except UserError as error:
            self.error = self.error or error
            return
        self._advance()

    def _collect(self) -> None:
        """Read the outcomes of the jobs of earlier commands."""
        keys = {frozenset(known.point.items()): key for key, known in self.record.settings.items()}
        for record, run in self.study.jobs():
            point = {bare_key(name): text for name, text in record.point.items()}
            seed = point.pop(SEED, "")
            key = keys.get(frozenset(point.items()))
            index = self._index(seed)
            if key is None or index is None:
                raise UserError(f"{self.study.path}: job {record.number} is of no setting or seed of this study")
            self._runs[record.number] = key, index
            outcome = read_outcome(run)
            if outcome is not None:
                self.decisions.values[key, index] = _value(outcome)
            else:
                self._unfinished[key, index] = Job(record.number, run, run.read_config())

    def _index(self, seed: str) -> int | None:
        """Return the index of a seed; None if it is none of this study."""
        if not seed.isdecimal() or len(seed) > 10 or int(seed) in self.record.skipped_seeds:
            return None
        return int(seed) - sum(skipped < int(seed) for skipped in self.record.skipped_seeds)

    def _grow(self) -> None:
        """Open the families of this command: of the first settings, or of those that were added."""
        self.decisions.advance()
        self.decisions.add_settings(list(self.spec.candidates))
        self.decisions.advance()

    def _advance(self) -> None:
        """Complete rounds, and print what they have decided."""
        before = set(self.answer.clauses)
        if self.decisions.advance():
            self._write()
            print(
                "".join(f"decided: {line}\n" for line in self.answer.clauses if line not in before), end="", flush=True
            )

    def _write(self) -> None:
        """Write the families, before jobs are started for them, and the answer so far."""
        families = self.decisions.families
        opened = datetime.now(UTC).isoformat(timespec="seconds")
        known = self.record.families
        added = [to_record(family, opened) for family in families[len(known) :]]
        record = self.record.model_copy(update={"families": [*known, *added]})
        if added or not self.study.path.joinpath("families.json").exists() or record != self.record:
            write_record(self.study.path, record)
        self.record = record
        write_answer(self.study.path, self.answer)

    def _startable(self) -> list[Run]:
        return [run for run in self.decisions.wanted() if run not in self._running and run not in self._stopped]

    def _take(self, run: Run, has_capacity: Callable[[Config], bool]) -> Job | None:
        """Resume the job of a run, or create it; None if there is no capacity for it."""
        if (job := self._unfinished.get(run)) is not None:
            if not has_capacity(job.config):
                return None
            del self._unfinished[run]
            print_notes(record_resume(job.run, job.config, {}, self.spec.provenance))
        elif has_capacity(self.spec.examples[run[0]].config):
            job = self._create(run)
        else:
            return None
        self._running.add(run)
        return job

    def _create(self, run: Run) -> Job:
        key, index = run
        number, seed = self.study.next_number, self.record.seed(index)
        composed = self.spec.compose(self.spec.candidates[key], seed, number, self.study.known_jobs)
        if composed.number != number:
            raise UserError(
                f"{self.spec.candidates[key].name} with seed={seed} is the same run as {composed.directory}"
            )
        self._backend.check([composed.config])
        if composed.config["threads"] is None:
            num_jobs = len(self.spec.candidates) * self.spec.settings.seeds_max
            threads = self._backend.threads(composed.config, num_jobs)
            composed = replace(composed, config=composed.config | {"threads": threads})
        composed = replace(composed, point=self.record.settings[key].point | {SEED: str(seed)})
        (job,) = create_jobs(self.study, [composed], self.spec.provenance)
        self._runs[job.number] = run
        return job

    def _stop_without_metric(self, outcome: Outcome) -> None:
        """Stop if the runs do not log the objective, and no run has a value."""
        is_missing = f"objective.metric={self.spec.objective.metric}: was not logged" in outcome.message
        if is_missing and all(value is None for value in self.decisions.values.values()):
            raise UserError(outcome.message)


def open_decisions(spec: DecideSpec, study: Study) -> tuple[Record, Decisions]:
    """Return the record of a study, with the names and settings of this command, and the decisions without values."""
    settings, before = spec.settings, check_growth(spec, study)
    known = before.settings if before is not None else {}
    record = Record(
        alpha=settings.alpha,
        alpha_reserve=settings.alpha_reserve,
        delta=settings.delta,
        seeds_max=settings.seeds_max,
        skipped_seeds=spec.skipped_seeds if before is None else before.skipped_seeds,
        baseline=spec.baseline,
        settings={
            key: SettingRecord(name=setting.name, point=known[key].point if key in known else setting.point)
            for key, setting in spec.candidates.items()
        },
        families=before.families if before is not None else [],
    )
    decisions = Decisions(spec.rule, settings.alpha_reserve, settings.seeds_max, spec.baseline)
    for family in record.families:
        decisions.open(family.to_family())
    return record, decisions


def to_record(family: Family, opened: str) -> FamilyRecord:
    """Return the record of a family that was opened at a time."""
    pairs, within = [list(pair) for pair in family.pairs], [list(pair) for pair in family.within]
    return FamilyRecord(
        pairs=pairs, horizon=family.horizon, alpha=family.alpha, source=family.source, extends=family.extends,
        within=within, opened=opened,
    )  # fmt: skip


def _is_final(outcome: Outcome) -> bool:
    """Return True if a job that has ended is not run again."""
    return (
        outcome.status is RunStatus.PRUNED
        or outcome.status is RunStatus.COMPLETED
        or (outcome.is_failure and outcome.status is not RunStatus.LOST)
    )


def _value(outcome: Outcome) -> float | None:
    """Return the objective of a completed run; None if it has none that is a number."""
    value = as_number(outcome.objective) if outcome.status is RunStatus.COMPLETED else None
    return value if value is not None and math.isfinite(value) else None


def _text(value: object) -> str:
    return "null" if value is None else str(value)
