"""Description of a decide study before its start."""

from litlab.runs.terminal import display_path, printable
from litlab.sweep.decide.source import DecideSpec
from litlab.sweep.study import Study


def describe_decide(spec: DecideSpec, study: Study) -> list[str]:
    """Describe what a decide study would do, line by line."""
    settings, objective, num = spec.settings, spec.objective, len(spec.candidates)
    if spec.baseline is None:
        question = f"{num} settings, each against each"
    else:
        question = f"{num - 1} setting{'s' * (num != 2)} against {spec.candidates[spec.baseline].name}"
    delta = "" if settings.delta is None else f", smallest difference that matters {settings.delta:g}"
    lines = [
        f"{question}, decided by {objective.metric} ({objective.mode}), in {display_path(study.path)}",
        f"up to {settings.seeds_max} seeds each, so at most {num * settings.seeds_max} runs; "
        f"{len(study.records)} jobs known",
        f"chance of any false difference at most {settings.alpha:g}{delta}",
        "settings",
        *(f"  {setting.name}" for setting in spec.candidates.values()),
    ]
    return [printable(line) for line in lines]
