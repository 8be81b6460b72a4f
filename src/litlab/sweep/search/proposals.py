"""Source of the jobs of a search: Optuna proposes a job when there is capacity, and receives its outcome."""

import warnings
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsReader
from litlab.runs.redact import redact
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, Job
from litlab.sweep.jobs import create_jobs, print_notes, record_resume
from litlab.sweep.outcome import Outcome, read_outcome
from litlab.sweep.search.sampler import DistinctSampler, make_distribution, suggest, to_point
from litlab.sweep.search.settings import make_pruner, make_sampler, missing_metric, num_validations, objective_value
from litlab.sweep.search.spec import SearchSpec
from litlab.sweep.search.storage import open_trials
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


_MAX_ERROR_LENGTH = 1000  # characters of an error that is stored with a trial
_MAX_REFUSED = 5  # points that can't be jobs, if none could before


class SearchSource:
    """Source of the jobs that a sampler proposes. The number of a job is that of its trial.

    The study has to be locked. The constructor brings the trials up to date with the files of the runs.

    Args:
        search: Specification of the search.
        study: Directory of its jobs.
        backend: Backend that will run the jobs.

    Attributes:
        trials: Optuna's study.
        started: Jobs that were handed out, by number.
        outcomes: Outcomes of those that have ended since, by number.
        error: Reason why the search can't continue; `next_job` raises it.

    Raises:
        UserError: If the trials can't be read, or are not those of this study.
    """

    is_adaptive = True

    def __init__(self, search: SearchSpec, study: Study, backend: Backend) -> None:
        self.search, self.study, self._backend = search, study, backend
        self._reporters: dict[int, ValidationReporter] = {}
        self._resumed: deque[Job] = deque()  # jobs of an earlier command
        self._pending_trials: deque[Trial] = deque()  # without a job, of an earlier command
        self._waiting_job: Job | None = None  # created, but larger than the capacity
        self._num_refused = 0
        self.started: dict[int, Job] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.error: UserError | None = None
        with search.storage_errors(study):
            self.trials, self._sampler = self._open()
            self._reconcile()

    @property
    def total(self) -> int:
        """Number of trials, with those that are to come."""
        return max(self._num_trials, 0 if self.is_out_of_points else self.search.settings.trials)

    @property
    def is_out_of_points(self) -> bool:
        """True if every point of a finite space has its trial."""
        return self._sampler.is_exhausted

    def is_exhausted(self) -> bool:
        """Return True if no more jobs will come."""
        left = self._resumed or self._pending_trials or self._waiting_job or self.error
        return not left and self._num_trials >= self.total

    def next_job(self, has_capacity: Callable[[Config], bool]) -> Job | None:
        """Return a job of an earlier command, or else a new one, if there is capacity for it.

        Raises:
            UserError: If the search can't continue.
        """
        if self.error is not None:
            raise self.error
        job = None
        if self._resumed:
            job = self._resumed.popleft() if has_capacity(self._resumed[0].config) else None
        elif self._waiting_job is None and not self.is_exhausted() and has_capacity(self.search.typical_config):
            with self.search.storage_errors(self.study):
                self._waiting_job = self._create_job()
        if self._waiting_job is not None and has_capacity(self._waiting_job.config):
            job, self._waiting_job = self._waiting_job, None
        if job is not None:
            self.started[job.number] = job
        return job

    def jobs_to_prune(self, running: Sequence[Job]) -> list[Job]:
        """Report the validations of the running jobs, and return those to prune."""
        with self.search.storage_errors(self.study):
            return [job for job in running if self._reporters[job.number].report()]

    def job_ended(self, job: Job, outcome: Outcome) -> None:
        """Tell Optuna the outcome. An error is kept for `next_job`, since other jobs may end at the same time."""
        self.outcomes[job.number] = outcome
        try:
            with self.search.storage_errors(self.study):
                self._tell(job, outcome)
        except UserError as error:
            self.error = self.error or error

    def _open(self) -> tuple[optuna.Study, DistinctSampler]:
        """Open the trials with a sampler whose seed has not been used."""
        search, settings = self.search, self.search.settings
        arguments = (self.study.path, settings.storage, search.name, search.objectives)
        trials = open_trials(*arguments)
        if not self.study.records and self._has_other_space(trials):  # no job had come of these trials
            optuna.delete_study(study_name=trials.study_name, storage=trials._storage)
            trials = open_trials(*arguments)
        self._num_trials = len(trials.get_trials(deepcopy=False))
        trials.pruner = make_pruner(settings, num_validations(search.typical_config))
        sampler = DistinctSampler(make_sampler(settings, self._num_trials), search.space, settings.seed)
        trials.sampler = sampler
        return trials, sampler

    def _has_other_space(self, trials: optuna.Study) -> bool:
        space = {dimension.name: make_distribution(dimension) for dimension in self.search.space.dimensions}
        return any(
            space.get(name) != distribution
            for trial in trials.get_trials(deepcopy=False)
            for name, distribution in trial.distributions.items()
        )

    def _reconcile(self) -> None:
        """Tell Optuna the outcome of jobs that ended after their controller was killed, and resume the others."""
        runs = {record.number: run for record, run in self.study.jobs()}
        trials = self.trials.get_trials(deepcopy=False)
        if lost := sorted(runs.keys() - {trial.number for trial in trials}):
            raise UserError(
                f"{self.study.path}: the trials of its search don't have job {lost[0]}: their file or database was "
                "removed or exchanged; bring it back, or choose another study.name"
            )
        notes: list[str] = []
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.number not in runs:
                self._pending_trials.append(Trial(self.trials, trial._trial_id))
                continue
            self._sampler.seen.add(to_point(self.search.space, trial.params))
            if trial.state == TrialState.RUNNING:
                notes += self._resume(trial, runs[trial.number])
        print_notes(notes)

    def _resume(self, frozen: FrozenTrial, run: RunDirectory) -> list[str]:
        """Tell the outcome of a job if it has one, else hand it out again; returns notes about its code."""
        trial = Trial(self.trials, frozen._trial_id)
        job = Job(trial.number, run, run.read_config())
        self._add_reporter(trial, job, frozen.intermediate_values)
        outcome = read_outcome(run)
        if outcome is not None:
            self._tell(job, outcome)
            return []
        self._resumed.append(job)
        return record_resume(run, job.config, {}, self.search.provenance)

    def _create_job(self) -> Job | None:
        """Create a job from a new trial; None if its point can't be one, which counts as a failed trial."""
        if self._pending_trials:
            trial = self._pending_trials.popleft()
        else:
            trial = self.trials.ask()
            self._num_trials += 1
        point = suggest(trial, self.search.space)
        self._sampler.seen.add(frozenset(point.items()))
        try:
            composed = self._compose(self.search.space.overrides(point), trial.number)
        except UserError as error:
            self._fail(trial, str(error))
            self._num_refused += 1
            if not self.study.records and self._num_refused >= min(_MAX_REFUSED, self.search.settings.trials):
                raise
            return None
        (job,) = create_jobs(self.study, [composed], self.search.provenance)
        trial.set_user_attr("directory", job.name)
        self._add_reporter(trial, job)
        return job

    def _compose(self, overrides: list[str], number: int) -> "ComposedJob":
        composed = self.search.compose(overrides, number)
        if composed.number != number:
            raise UserError(f"the same experiment as {composed.directory}")
        self._backend.check([composed.config])
        if composed.config["threads"] is None:
            threads = self._backend.threads(composed.config, self.search.settings.trials)
            composed = replace(composed, config=composed.config | {"threads": threads})
        return composed

    def _add_reporter(self, trial: Trial, job: Job, reported: Collection[int] = ()) -> None:
        objectives = self.search.objectives
        metric = objectives[0].metric if len(objectives) == 1 else None  # Optuna prunes by a single objective only
        self._reporters[job.number] = ValidationReporter(trial, job, metric, reported)

    def _tell(self, job: Job, outcome: Outcome) -> None:
        """Tell the outcome of a job. An interrupted, cancelled or lost trial stays: the next command resumes it."""
        reporter = self._reporters[job.number]
        reporter.report()
        trial = reporter.trial
        if outcome.status == RunStatus.COMPLETED:
            self._tell_values(trial, outcome)
        elif outcome.status == RunStatus.PRUNED:
            self.trials.tell(trial, state=TrialState.PRUNED)
        elif outcome.is_failure and outcome.status != RunStatus.LOST:
            self._fail(trial, outcome.message)
            for objective in self.search.objectives:
                if f"objective.metric={objective.metric}: was not logged" in outcome.message:
                    self._stop_unless_completed(outcome.message)

    def _tell_values(self, trial: Trial, outcome: Outcome) -> None:
        values = [objective_value(objective, outcome.result) for objective in self.search.objectives]
        finite = [value for value in values if value is not None]
        if len(finite) == len(values):
            self.trials.tell(trial, finite)
            return
        reported = list(outcome.result.get("best") or outcome.result.get("last") or {})
        message = missing_metric(self.search.objectives, reported)
        self._fail(trial, message or "the objective is no finite number")
        if message:
            self._stop_unless_completed(message)

    def _fail(self, trial: Trial, message: str) -> None:
        trial.set_user_attr("error", redact(message)[:_MAX_ERROR_LENGTH])
        self.trials.tell(trial, state=TrialState.FAIL)

    def _stop_unless_completed(self, message: str) -> None:
        """Stop the search because its jobs do not have the objective."""
        if not self.trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(message)


class ValidationReporter:
    """Reports the values of a metric to the trial of a job, each once, no matter how often the job is resumed.

    The first validation is step 1 of the trial, whatever the optimizer step; `reported` steps it has already.
    """

    def __init__(self, trial: Trial, job: Job, metric: str | None, reported: Collection[int]) -> None:
        self.trial = trial
        self._metric = metric
        self._reader = MetricsReader(job.run.metrics)
        self._last_step = num_validations(job.config)
        self._trial_steps: dict[int, int] = {}  # optimizer step -> step of the trial
        self._reported = set(reported)

    def report(self) -> bool:
        """Report new values; returns True if the job should be pruned, unless its last validation is over."""
        should_prune = False
        for row in self._reader.read():
            if row.metric != self._metric or row.step in self._trial_steps:
                continue
            step = self._trial_steps[row.step] = len(self._trial_steps) + 1
            if step in self._reported:
                continue
            self.trial.report(row.value, step)
            self._reported.add(step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of values that are no numbers
                is_unpromising = self.trial.should_prune()  # asked for each value: pruners count them
            should_prune = is_unpromising and step != self._last_step
        return should_prune
