"""Reports of a search: what a dry run would search, the best trials at the end, what pruning saved."""

from collections.abc import Sequence
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

from litlab.config.schema import Objective
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metric_table
from litlab.runs.result import read_result
from litlab.runs.terminal import display_path, headline, printable
from litlab.sweep.search.proposals import SearchSource
from litlab.sweep.search.settings import num_validations
from litlab.sweep.search.spec import SearchSpec
from litlab.sweep.study import Study

NUM_BEST = 3
NUM_PARETO = 10


def describe_search(search: SearchSpec, study: Study) -> list[str]:
    """Describe what a search would do, line by line."""
    settings, dimensions = search.settings, search.space.dimensions
    width = max(len(dimension.name) for dimension in dimensions)
    return [
        f"a search of {settings.trials} trials for {_join(search.objectives)}, in {display_path(study.path)}",
        f"sampler {settings.sampler}, pruner {settings.pruner or 'none'}, {len(study.records)} jobs known",
        "space",
        *(
            f"  {dimension.name.ljust(width)}  {' '.join([dimension.expression, *dimension.condition_text()])}"
            for dimension in dimensions
        ),
    ]


def report_trials(source: SearchSource) -> list[str]:
    """Report the results of a search, line by line."""
    search, study, trials = source.search, source.study, source.trials
    completed = trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = trials.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    if completed:
        lines = ["", *_best(study, trials, completed, search.objectives)]
    else:
        names = " and ".join(objective.metric for objective in search.objectives)
        lines = [] if pruned else ["", f"no trial has a value of {names}"]
    if pruned:
        lines += ["", _saving(search, study, completed, pruned)]
    lines += _refused(trials)
    if source.is_out_of_points:
        count = len(trials.get_trials(deepcopy=False))
        lines += ["", f"every point of the space has its trial now: {count} of the {search.settings.trials} asked for"]
    return lines


def _join(objectives: Sequence[Objective]) -> str:
    return ", ".join(f"{objective.metric} ({objective.mode})" for objective in objectives)


def _best(
    study: Study, trials: optuna.Study, completed: Sequence[FrozenTrial], objectives: Sequence[Objective]
) -> list[str]:
    if len(objectives) > 1:
        best = sorted(trials.best_trials, key=lambda trial: trial.values)
        head = f"no trial is better in all of {_join(objectives)} than one of these {len(best)}"
    else:
        best = sorted(completed, key=lambda trial: trial.values, reverse=objectives[0].mode == "max")[:NUM_BEST]
        head = f"best by {_join(objectives)}"
    more = [f"  and {len(best) - NUM_PARETO} more"] if len(best) > NUM_PARETO else []
    return [head, *(_format_trial(study, trial, objectives) for trial in best[:NUM_PARETO]), *more]


def _format_trial(study: Study, trial: FrozenTrial, objectives: Sequence[Objective]) -> str:
    directory = str(trial.user_attrs.get("directory", trial.number))
    metrics = read_metric_table(RunDirectory(study.path / directory))
    values = ", ".join(
        metrics[objective.metric].format(value) for objective, value in zip(objectives, trial.values, strict=True)
    )
    params = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
    return printable(f"  {values}  {directory}  {params}")


def _saving(search: SearchSpec, study: Study, completed: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial]) -> str:
    """Report the number of pruned jobs, and the training time that their missing validations would have taken."""
    text = f"{len(pruned)} of {len(completed) + len(pruned)} jobs pruned"
    validations_per_job = num_validations(search.typical_config)
    seconds = _seconds_per_validation(study, completed)
    if validations_per_job is None or seconds is None:
        return text
    saved = sum(max(0, validations_per_job - len(trial.intermediate_values)) for trial in pruned)
    total = validations_per_job * (len(completed) + len(pruned))
    return f"{text}: {saved} of {total} validations not run, about {saved * seconds:.0f} s of training saved"


def _seconds_per_validation(study: Study, completed: Sequence[FrozenTrial]) -> float | None:
    counts = {trial.number: len(trial.intermediate_values) for trial in completed if trial.intermediate_values}
    seconds = []
    for record, run in study.jobs():
        if record.number in counts:
            with suppress(UserError):
                training = read_result(run)["seconds"].get("training")
                seconds += [training / counts[record.number]] if training is not None else []
    return sum(seconds) / len(seconds) if seconds else None


def _refused(trials: optuna.Study) -> list[str]:
    """List the trials whose points could not be jobs."""
    failed = trials.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    refused = [trial for trial in failed if "directory" not in trial.user_attrs]
    lines = [
        f"  trial {trial.number}: {headline(str(trial.user_attrs.get('error', '')))}" for trial in refused[:NUM_BEST]
    ]
    return ["", f"{len(refused)} sampled points could not be a job", *lines] if refused else []
