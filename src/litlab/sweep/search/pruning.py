"""Pruning of a search: reports the validations of running jobs to their trials."""

import warnings
from collections.abc import Collection

from optuna.trial import Trial

from litlab.runs.metrics import MetricsReader
from litlab.sweep.backends.base import Job
from litlab.sweep.search.objectives import num_validations


class ValidationReporter:
    """Reports the validation values of a job to its trial, each once, no matter how often the job is resumed.

    The first validation is step 1 of the trial, whatever the optimizer step.

    Args:
        trial: Trial of the job.
        job: The job.
        metric: Metric to report; None if there is no pruning.
        reported: Steps that the trial has already.
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
                is_hopeless = self.trial.should_prune()  # asked for each value: pruners count them
            should_prune = is_hopeless and step != self._last_step
        return should_prune
