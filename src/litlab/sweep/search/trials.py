"""The trials of a search and their runs: values that go from metrics.csv to the pruner, and ends found in files."""

import warnings
from collections.abc import Collection

from optuna.trial import Trial

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep.backend import Job
from litlab.sweep.follow import Follower
from litlab.sweep.outcome import Kind, Outcome
from litlab.sweep.search.objectives import num_validations

_ENDS: dict[str, Kind] = {"completed": "done", "pruned": "pruned", "failed": "failed", "refused": "refused"}


class Following:
    """Reports the validation values of a job to its trial: the first as step 1, each once, however often it resumes."""

    def __init__(self, trial: Trial, job: Job, metric: str | None, reported: Collection[int]) -> None:
        """
        Args:
            metric: what is reported; None where there is nothing to prune by.
            reported: the steps that the trial has already.
        """
        self.trial = trial
        self._metric = metric
        self._follower = Follower(job.run, job.config)
        self._last = num_validations(job.config)
        self._places: dict[int, int] = {}  # optimizer step -> which validation that was
        self._reported = set(reported)

    def report(self) -> bool:
        """Report what is new; tell whether the job is hopeless, as long as there is something left to save."""
        hopeless = False
        for row in self._follower.read():
            if row.metric != self._metric or row.step in self._places:
                continue
            place = self._places[row.step] = len(self._places) + 1
            if place in self._reported:
                continue
            self.trial.report(row.value, place)
            self._reported.add(place)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of values that are no numbers
                worse = self.trial.should_prune()  # asked of each value, since pruners keep account of them
            hopeless = worse and place != self._last
        return hopeless


def outcome_in_files(run: RunDirectory) -> Outcome | None:
    """How a run ended that nobody waited for; None if it is to go on."""
    try:
        result = run.read_json(run.result)
    except UserError:
        return None
    if not isinstance(result, dict):
        return None
    kind = _ENDS.get(str(result.get("status")))
    return Outcome(kind, str(result.get("error") or ""), (), result, 0.0) if kind else None
