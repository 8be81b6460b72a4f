"""Lightning's counters, put back to the letter.

On its own, Lightning guesses from a checkpoint's counters where it was saved, and is off by one batch, one step or one
epoch in many places. Its guess only has to lead back to the hook that the checkpoint was saved in; there everything is
set to what it was.
"""

import copy
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.loop import _Loop

Progress = dict[str, Any]
_VALIDATION = "epoch_loop.val_loop.batch_progress"


def progress(trainer: Trainer) -> Progress:
    """All counters of the fit loop, and of the loops in it."""
    return trainer.fit_loop.state_dict()


def set_progress(trainer: Trainer, state: Progress) -> None:
    """Go on as in a run that was never interrupted, with the counters of `progress` at the same hook."""
    for prefix, loop in _loops(trainer.fit_loop, ""):
        loop._load_from_state_dict(copy.deepcopy(state), prefix)
    uninterrupted(trainer)


def uninterrupted(trainer: Trainer) -> None:
    """Make Lightning forget that it restarted."""
    for _, loop in _loops(trainer.fit_loop, ""):
        loop.on_iteration_done()


def within_validation(state: Progress) -> Progress:
    """Counters, taken when a validation began, that make Lightning begin that validation anew."""
    unfinished = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    numbers = {"total": dict(unfinished), "current": dict(unfinished), "is_last_batch": False}
    return copy.deepcopy(state) | {_VALIDATION: numbers}


def _loops(loop: _Loop, prefix: str) -> Iterator[tuple[str, _Loop]]:
    yield prefix, loop
    for name, child in vars(loop).items():
        if isinstance(child, _Loop):
            yield from _loops(child, f"{prefix}{name}.")
