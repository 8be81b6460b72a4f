"""`experiment=speedrun` beside the public records, on one GPU: each in a warm process, run by run in turn."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import recipes
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.public_scripts import FoundScript, find_scripts, save_images
from benchmarks.recipes import Outcome
from benchmarks.settings import Settings
from benchmarks.warm_process import WarmProcess

LITLAB = "litlab"
NO_SCRIPTS = "gpu.speedrun: without --scripts FOLDER, litlab is measured alone"
_REGION = (
    "litlab counts: whitening of 5,000 images on the CPU; all epochs with order, crops, normalization, metrics, rows "
    "of the loggers, pictures and checkpoints between epochs; test with the views of the recipe. Not counted: "
    "compilation and choice of kernels (passes before the first step, measured in a row of their own); images to the "
    "GPU, initial weights, optimizer; the last checkpoint; pictures and tables of the test."
)
_NUM_WHOLE = 2  # runs of the whole command
Contender = Callable[[int], Mapping[str, float]]


def notes(settings: Settings) -> list[str]:
    """Say what the seconds of each contender contain, and which scripts are missing.

    Raises:
        UserError: `settings.scripts` is not a folder with the scripts.
    """
    if settings.scripts is None:
        return [_REGION, NO_SCRIPTS]
    found, missing = find_scripts(Path(settings.scripts))
    regions = [
        f"{script.name} ({version}) counts: {script.counted}. Not counted: {script.not_counted}."
        for script, version in ((entry.script, entry.version) for entry in found)
    ]
    return [_REGION, *regions, *missing]


def rows(settings: Settings, whole: Callable[..., Outcome] = recipes.run) -> list[Row]:
    """Measure the contenders in turn, then whole commands of litlab.

    Request 0 of each is its warm-up. The runs of litlab have the seeds 1, 2, ...; the scripts set no seed.
    """
    found = find_scripts(Path(settings.scripts))[0] if settings.scripts is not None else []
    with temporary_folder() as folder, ExitStack() as stack:
        save_images(prepared(*settings.speedrun_data), folder)
        contenders: dict[str, Contender] = {
            name: stack.enter_context(WarmProcess(folder, folder / f"{name}.log", *arguments)).run
            for name, arguments in commands(settings, found, folder).items()
        }
        measured = in_turn(contenders, settings.num_speedruns)
    seconds = tuple(whole("experiment=speedrun", *settings.speedrun_data).seconds for _ in range(_NUM_WHOLE))
    return [*comparison(measured), Row("GPU: speedrun, whole process", "s", seconds)]


def commands(settings: Settings, found: Sequence[FoundScript], folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the arguments of Python for each contender."""
    litlab = ("-m", "benchmarks.warm_litlab", str(folder / "runs"), "experiment=speedrun", *settings.speedrun_data)
    scripts = {entry.script.name: ("-m", "benchmarks.warm_script", str(entry.path.resolve())) for entry in found}
    return {LITLAB: litlab, **scripts}


def in_turn(contenders: Mapping[str, Contender], num_rounds: int) -> dict[str, list[Mapping[str, float]]]:
    """Warm each contender up, then run all of them round by round, in alternating order.

    A script that fails is left out from then on, with its output on standard error: on a rented machine, its failure
    should not cost the rest of the measurement. litlab must not fail.

    Returns:
        What each returned in each counted round; shorter for one that failed.
    """
    outcomes: dict[str, list[Mapping[str, float]]] = {name: [] for name in contenders}
    running = dict(contenders)

    def run(name: str, number: int) -> None:
        if name not in running:
            return
        try:
            outcome = running[name](number)
        except (RuntimeError, ValueError) as error:
            if name == LITLAB:
                raise
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
            del running[name]
            return
        if number:
            outcomes[name].append(outcome)
        label = f"run {number}" if number else "warm-up"
        values = f"{100 * outcome['accuracy']:.2f} %, {outcome['seconds']:.3f} s"
        print(f"{label}: {name} {values}", file=sys.stderr, flush=True)

    numbers = {name: iter(range(1 + num_rounds)) for name in contenders}
    turns = {name: lambda name=name: run(name, next(numbers[name])) for name in contenders}
    interleaved(turns, num_warmup=1, num_rounds=num_rounds)
    return outcomes


def comparison(outcomes: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Row]:
    """Return the rows of the counted seconds and of the accuracy against each script, then the parts of litlab's."""
    ours = outcomes[LITLAB]
    others = {name: theirs for name, theirs in outcomes.items() if name != LITLAB}
    rows = [] if others else _pair(ours)
    for name, theirs in others.items():
        if theirs:
            rows += _pair(ours[: len(theirs)], name, theirs)
        else:
            rows.append(Row(f"GPU: speedrun beside {name}: it failed, see the messages above", "", ()))
    parts = ("whitening", "training", "test", "compilation")
    rows += [Row(f"GPU: speedrun, {part}", "s", tuple(outcome[part] for outcome in ours)) for part in parts]
    return rows


def _pair(ours: Sequence[Mapping[str, float]], name: str = "", theirs: Sequence[Mapping[str, float]] = ()) -> list[Row]:
    accuracies = [tuple(100 * outcome["accuracy"] for outcome in outcomes) for outcomes in (ours, theirs)]
    seconds = [tuple(outcome["seconds"] for outcome in outcomes) for outcomes in (ours, theirs)]
    mean = f"GPU: speedrun, test accuracy, mean of {len(ours)}"
    rows = [
        Row("GPU: speedrun, counted region", "s", seconds[0], name, seconds[1]),
        Row(mean, "%", accuracies[0], name, accuracies[1], is_mean=True),
    ]
    if theirs:
        differences = tuple(mine - other for mine, other in zip(*accuracies, strict=True))
        rows.append(Row("GPU: speedrun, difference of the means", "points", differences, name, is_mean=True))
    return rows
