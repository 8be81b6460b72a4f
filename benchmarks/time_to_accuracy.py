"""How long litlab's recipes take to an accuracy, against the classic tutorial, whole processes in turn."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import in_memory, recipes
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved
from benchmarks.recipes import Outcome
from benchmarks.runs import program
from benchmarks.settings import Settings

_AGAINST = "the classic tutorial"


def tutorial(arrays: Path, seed: int) -> Outcome:
    """`benchmarks.tutorial`, from start to end."""
    began = time.perf_counter()
    found = json.loads(program("tutorial", arrays, seed))
    seconds = time.perf_counter() - began
    return Outcome(found["accuracy"], seconds, found["training"])


def rows(
    settings: Settings,
    recipe: Callable[..., Outcome] = recipes.run,
    tutorial: Callable[[Path, int], Outcome] = tutorial,
) -> list[Row]:
    """Three rows for each recipe, some of fewer rounds; the number of the round is the seed of all contenders."""
    found: dict[str, list[Outcome]] = {name: [] for name in ("", *settings.recipes)}
    with TemporaryDirectory(prefix="litlab-bench-") as folder:
        in_memory.save(prepared(*settings.data, "data.val_size=0"), Path(folder), num_val=0)
        data = (*settings.data, "data.val_size=0")
        contenders: dict[str, Callable[[], object]] = {
            name: partial(_append, found[name], num_rounds, partial(recipe, f"experiment={name}", *data))
            for name, num_rounds in settings.recipes.items()
        }
        contenders[""] = lambda: found[""].append(tutorial(Path(folder), len(found[""])))
        interleaved(contenders, num_warmup=0, num_rounds=max(settings.recipes.values()))
    return [row for name in settings.recipes for row in _rows(name, found[name], found[""])]


def _append(outcomes: list[Outcome], num_rounds: int, recipe: Callable[..., Outcome]) -> None:
    if len(outcomes) < num_rounds:
        outcomes.append(recipe(f"seed={len(outcomes)}"))


def _rows(name: str, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> list[Row]:
    theirs = theirs[: len(ours)]
    kinds = (("training", "s", "training", 1), ("whole process", "s", "seconds", 1))
    kinds += (("test accuracy", "%", "test_accuracy", 100),)
    return [
        Row(f"{name}: {what}", unit, _values(ours, attribute, scale), _AGAINST, _values(theirs, attribute, scale))
        for what, unit, attribute, scale in kinds
    ]


def _values(outcomes: Sequence[Outcome], attribute: str, scale: int) -> tuple[float, ...]:
    return tuple(scale * getattr(outcome, attribute) for outcome in outcomes)
