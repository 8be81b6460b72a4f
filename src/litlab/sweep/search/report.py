"""What a search has found, in a few lines: the best trials, and what pruning saved."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from litlab.errors import UserError
from litlab.runs.result import read_result
from litlab.runs.terminal import display_path, headline, printable
from litlab.sweep.display import number
from litlab.sweep.search.objectives import Objective, num_validations
from litlab.sweep.search.spec import Search
from litlab.sweep.study import Study

NUM_BEST = 3
NUM_PARETO = 10


def outline(search: Search, study: Study) -> list[str]:
    """What a search would do, line by line."""
    settings, width = search.settings, max(len(each.name) for each in search.space.dimensions)
    dimensions = [
        f"  {each.name.ljust(width)}  {' '.join([each.expression, *each.condition_text()])}"
        for each in search.space.dimensions
    ]
    pruner = settings.pruner or "none"
    goals = ", ".join(f"{each.metric} ({each.mode})" for each in search.objectives)
    return [
        f"a search of {settings.trials} trials for {goals}, in {display_path(study.path)}",
        f"sampler {settings.sampler}, pruner {pruner}, {len(study.records)} jobs known",
        "space",
        *dimensions,
    ]


def findings(search: Search, study: Study, trials: optuna.Study, *, is_out_of_points: bool) -> list[str]:
    """The end of a search, line by line.

    Args:
        trials: as Optuna has them.
        is_out_of_points: whether it ended since there was nothing new left to try.
    """
    done = trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = trials.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    lines = ["", *_best(trials, done, search.objectives)] if done else []
    if pruned:
        lines += ["", _pruned(search, study, done, pruned)]
    lines += _without_job(trials)
    if is_out_of_points:
        count = len(trials.get_trials(deepcopy=False))
        lines += ["", f"every point of the space has its trial now: {count} of the {search.settings.trials} asked for"]
    return lines


def _best(trials: optuna.Study, done: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[str]:
    names = ", ".join(f"{each.metric} ({each.mode})" for each in objectives)
    if len(objectives) > 1:
        best = sorted(trials.best_trials, key=lambda each: each.values)
        head = f"no trial is better in all of {names} than one of these {len(best)}"
    else:
        best = sorted(done, key=lambda each: each.values, reverse=objectives[0].mode == "max")[:NUM_BEST]
        head = f"best by {names}"
    rest = [f"  and {len(best) - NUM_PARETO} more"] if len(best) > NUM_PARETO else []
    return [head, *(_line(each, objectives) for each in best[:NUM_PARETO]), *rest]


def _line(trial: FrozenTrial, objectives: Sequence[Objective]) -> str:
    values = ", ".join(number(each.metric, value) for each, value in zip(objectives, trial.values, strict=True))
    params = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
    return printable(f"  {values}  {trial.user_attrs.get('directory', trial.number)}  {params}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pruned(search: Search, study: Study, done: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial]) -> str:
    """How many, and about how much training that saved: validations left out, as long as those of finished jobs."""
    said = f"{len(pruned)} of {len(done) + len(pruned)} jobs pruned"
    whole = num_validations(search.typical)
    seconds = _seconds_a_validation(study, done)
    if whole is None or seconds is None:
        return said
    spared = sum(max(0, whole - len(each.intermediate_values)) for each in pruned)
    of_all = whole * (len(done) + len(pruned))
    return f"{said}: {spared} of {of_all} validations not run, about {spared * seconds:.0f} s of training saved"


def _seconds_a_validation(study: Study, done: Sequence[FrozenTrial]) -> float | None:
    counts = {each.number: len(each.intermediate_values) for each in done if each.intermediate_values}
    seconds = []
    for record, run in study.jobs():
        if record.number in counts:
            try:
                spent = read_result(run)["seconds"].get("training")
            except UserError:
                continue
            seconds += [spent / counts[record.number]] if spent is not None else []
    return sum(seconds) / len(seconds) if seconds else None


def _without_job(trials: optuna.Study) -> list[str]:
    """Trials whose points could not be a job."""
    failed = trials.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    refused = [each for each in failed if "directory" not in each.user_attrs]
    lines = [f"  trial {each.number}: {headline(str(each.user_attrs.get('error', '')))}" for each in refused[:NUM_BEST]]
    return ["", f"{len(refused)} sampled points could not be a job", *lines] if refused else []
