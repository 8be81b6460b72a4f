"""Time to accuracy of litlab's recipes against the classic tutorial, as whole processes in turn."""

from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks import in_memory, recipes
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.recipes import Outcome, outcome_rows, run_program
from benchmarks.settings import Settings


def tutorial(arrays: Path, seed: int) -> Outcome:
    return run_program("tutorial", arrays, seed)


def rows(
    settings: Settings,
    recipe: Callable[..., Outcome] = recipes.run,
    tutorial: Callable[[Path, int], Outcome] = tutorial,
) -> list[Row]:
    """Measure each recipe, some in fewer rounds; the number of the round is the seed of all contenders."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ("", *settings.recipes)}
    with temporary_folder() as folder:
        in_memory.save(prepared(*settings.data, "data.val_size=0"), folder, num_val=0)
        data = (*settings.data, "data.val_size=0")
        contenders: dict[str, Callable[[], object]] = {
            name: partial(_append, outcomes[name], num_rounds, partial(recipe, f"experiment={name}", *data))
            for name, num_rounds in settings.recipes.items()
        }
        contenders[""] = lambda: outcomes[""].append(tutorial(folder, len(outcomes[""])))
        interleaved(contenders, num_warmup=0, num_rounds=max(settings.recipes.values()))
    tutorials = outcomes.pop("")
    rows = [outcome_rows(name, ours, "the classic tutorial", tutorials[: len(ours)]) for name, ours in outcomes.items()]
    return list(chain.from_iterable(rows))


def _append(outcomes: list[Outcome], num_rounds: int, recipe: Callable[..., Outcome]) -> None:
    if len(outcomes) < num_rounds:
        outcomes.append(recipe(f"seed={len(outcomes)}"))
