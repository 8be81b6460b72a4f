"""A search as a source of jobs: Optuna is asked for each when there is room, and told how it came out."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.redact import redact
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, Job
from litlab.sweep.jobs import create_jobs, print_notes, record_resume
from litlab.sweep.outcome import Outcome
from litlab.sweep.search.objectives import num_validations, unreported
from litlab.sweep.search.sampler import DistinctSampler, as_point, distribution, suggest
from litlab.sweep.search.settings import make_pruner, make_sampler
from litlab.sweep.search.spec import Search
from litlab.sweep.search.storage import Following, open_trials, outcome_in_files
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


_LONGEST = 1000  # characters of an error that is kept with a trial
_HOPELESS = 5  # points that can't be jobs, if none could before


class SearchSource:
    """A `Source` of the jobs that a sampler proposes. The number of a job is that of its trial.

    Made while the study is held: it first brings the trials up to what their runs' files say.

    Attributes:
        trials: Optuna's study.
        started: number -> job, of those that were handed out.
        outcomes: number -> how it came out, of those that have ended since.
        error: why the search can't go on; the next call of `next` raises it.
    """

    def __init__(self, search: Search, study: Study, backend: Backend) -> None:
        """
        Raises:
            UserError: if the trials can't be read, or are not those of this study.
        """
        self._search, self._study, self._backend = search, study, backend
        self._following: dict[int, Following] = {}
        self._continued: deque[Job] = deque()  # begun, and not ended
        self._sampled: deque[Trial] = deque()  # asked for, and not admitted
        self._held_back: Job | None = None  # admitted, and larger than the room
        self._num_refused = 0  # points that could not be jobs
        self.started: dict[int, Job] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.error: UserError | None = None
        with search.explained(study):
            self.trials, self._sampler = self._open()
            self._reconcile()

    @property
    def total(self) -> int:
        return max(self._num_trials, 0 if self.is_out_of_points else self._search.settings.trials)

    @property
    def is_out_of_points(self) -> bool:
        """Whether every point of a finite space has its trial."""
        return self._sampler.is_exhausted

    def is_exhausted(self) -> bool:
        left = self._continued or self._sampled or self._held_back or self.error
        return not left and self._num_trials >= self.total

    def next(self, has_room: Callable[[Config], bool]) -> Job | None:
        """What was begun goes on first; then one new job, if there is room for one like those before."""
        if self.error is not None:
            raise self.error
        job = None
        if self._continued:
            job = self._continued.popleft() if has_room(self._continued[0].config) else None
        elif self._held_back is None and not self.is_exhausted() and has_room(self._search.typical):
            with self._search.explained(self._study):
                self._held_back = self._new_job()
        if self._held_back is not None and has_room(self._held_back.config):
            job, self._held_back = self._held_back, None
        if job is not None:
            self.started[job.number] = job
        return job

    def look(self, running: Sequence[Job]) -> list[Job]:
        with self._search.explained(self._study):
            return [job for job in running if self._following[job.number].report()]

    def ended(self, job: Job, outcome: Outcome) -> None:
        """An error waits for `next`: other jobs that ended at the same time are to be noted, too."""
        self.outcomes[job.number] = outcome
        try:
            with self._search.explained(self._study):
                self._tell(job, outcome)
        except UserError as error:
            self.error = self.error or error

    def _open(self) -> tuple[optuna.Study, DistinctSampler]:
        """The trials with a sampler that has not sampled from the same seed before."""
        search, settings = self._search, self._search.settings
        pruner = make_pruner(settings, num_validations(search.typical))
        place = (self._study.path, settings.storage, search.name)
        trials = open_trials(*place, search.objectives, make_sampler(settings, 0), pruner)
        if not self._study.records and self._is_elsewhere(trials):  # nothing had come of it
            optuna.delete_study(study_name=trials.study_name, storage=trials._storage)
            trials = open_trials(*place, search.objectives, make_sampler(settings, 0), pruner)
        self._num_trials = len(trials.get_trials(deepcopy=False))
        sampler = DistinctSampler(make_sampler(settings, self._num_trials), search.space, settings.seed)
        trials.sampler = sampler
        return trials, sampler

    def _is_elsewhere(self, trials: optuna.Study) -> bool:
        """Whether the points tried so far are of another space."""
        known = {each.name: distribution(each) for each in self._search.space.dimensions}
        found = [pair for each in trials.get_trials(deepcopy=False) for pair in each.distributions.items()]
        return any(known.get(name) != there for name, there in found)

    def _reconcile(self) -> None:
        """A killed controller leaves trials running: those that have ended are told, the others go on."""
        runs = {record.number: run for record, run in self._study.jobs()}
        frozen = self.trials.get_trials(deepcopy=False)
        if lost := sorted(runs.keys() - {each.number for each in frozen}):
            raise UserError(
                f"{self._study.path}: the trials of its search don't have job {lost[0]}: their file or database was "
                "removed or exchanged; bring it back, or choose another study.name"
            )
        remarks: list[str] = []
        for each in frozen:
            if each.state == TrialState.RUNNING and each.number not in runs:
                self._sampled.append(Trial(self.trials, each._trial_id))
                continue
            self._sampler.seen.add(as_point(self._search.space, each.params))
            if each.state == TrialState.RUNNING:
                remarks += self._take_up(each, runs[each.number])
        print_notes(remarks)

    def _take_up(self, frozen: FrozenTrial, run: RunDirectory) -> list[str]:
        """What is known of how a job ended, or the job once more; returns what should be known about its code."""
        trial = Trial(self.trials, frozen._trial_id)
        job = Job(trial.number, run, run.read_config())
        self._follow(trial, job, frozen.intermediate_values)
        outcome = outcome_in_files(run)
        if outcome is not None:
            self._tell(job, outcome)
            return []
        self._continued.append(job)
        return record_resume(run, job.config, {}, self._search.provenance)

    def _new_job(self) -> Job | None:
        """A trial with its run directory; None if what was sampled can't be a job, which counts as a trial."""
        trial = self._sampled.popleft() if self._sampled else self._ask()
        point = suggest(trial, self._search.space)
        self._sampler.seen.add(frozenset(point.items()))
        try:
            composed = self._composed(self._search.space.overrides(point), trial.number)
        except UserError as error:
            self._fail(trial, str(error))
            self._num_refused += 1
            if not self._study.records and self._num_refused >= min(_HOPELESS, self._search.settings.trials):
                raise
            return None
        (job,) = create_jobs(self._study, [composed], self._search.provenance)
        trial.set_user_attr("directory", job.name)
        self._follow(trial, job)
        return job

    def _ask(self) -> Trial:
        trial = self.trials.ask()
        self._num_trials += 1
        return trial

    def _composed(self, overrides: list[str], number: int) -> "ComposedJob":
        composed = self._search.compose(overrides, number)
        if composed.number != number:
            raise UserError(f"the same experiment as {composed.directory}")
        self._backend.check([composed.config])
        if composed.config["threads"] is None:
            threads = self._backend.threads(composed.config, self._search.settings.trials)
            composed = replace(composed, config=composed.config | {"threads": threads})
        return composed

    def _follow(self, trial: Trial, job: Job, reported: Collection[int] = ()) -> None:
        several = len(self._search.objectives) > 1
        metric = None if several else self._search.objectives[0].metric
        self._following[job.number] = Following(trial, job, metric, reported)

    def _tell(self, job: Job, outcome: Outcome) -> None:
        """How a job came out. An interrupted one stays as it is: the next start of the search goes on with it."""
        following = self._following[job.number]
        following.report()
        trial = following.trial
        if outcome.status == RunStatus.COMPLETED:
            self._tell_values(trial, outcome)
        elif outcome.status == RunStatus.PRUNED:
            self.trials.tell(trial, state=TrialState.PRUNED)
        elif outcome.is_failure:
            self._fail(trial, outcome.message)
            for each in self._search.objectives:
                if f"objective.metric={each.metric}: was not logged" in outcome.message:
                    self._refuse(outcome.message)

    def _tell_values(self, trial: Trial, outcome: Outcome) -> None:
        values = [each.value(outcome.result) for each in self._search.objectives]
        found = [value for value in values if value is not None]
        if len(found) == len(values):
            self.trials.tell(trial, found)
            return
        reported = list(outcome.result.get("best") or outcome.result.get("last") or {})
        missing = unreported(self._search.objectives, reported)
        self._fail(trial, missing or "the objective is no finite number")
        if missing:
            self._refuse(missing)

    def _fail(self, trial: Trial, message: str) -> None:
        trial.set_user_attr("error", redact(message)[:_LONGEST])
        self.trials.tell(trial, state=TrialState.FAIL)

    def _refuse(self, message: str) -> None:
        """
        Raises:
            UserError: unless other jobs had what one goes by.
        """
        if not self.trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(message)
