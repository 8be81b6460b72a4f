"""Where a run goes on: from its newest intact checkpoint, with its files as they were then."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import cut_back, link, sweep
from litlab.training.checkpoint_io import newest, read_checkpoint

_log = logging.getLogger("litlab")
_NEEDED = {
    "hook",
    "epoch",
    "batch",
    "step",
    "progress",
    "ranks",
    "best",
    "training",
    "seconds_saving",
    "sizes",
    "limits",
    "data",
}
LIMITS = ("max_epochs", "max_steps")


@dataclass(frozen=True)
class Start:
    """Attributes:
    checkpoint: the file to go on from; None to begin.
    part: what litlab put into it.
    warnings: what the user should know.
    """

    checkpoint: Path | None
    part: dict[str, Any] | None
    warnings: list[str]

    @classmethod
    def find(cls, run: RunDirectory) -> "Start":
        """
        Raises:
            UserError: if there are checkpoints, but none that can be used.
        """
        path, warnings = newest(run)
        if path is None:
            return cls(None, None, _from_the_beginning(run))
        warnings += [f"going on from the one before it, {path}"] if warnings else []
        part = read_checkpoint(path).get("litlab")
        if not isinstance(part, dict) or part.get("format") != 1 or not part.keys() >= _NEEDED:
            raise UserError(f"{path}: it was not saved by a run of this version of litlab, so it cannot be continued")
        if lost := lost_best(run, part):
            part["best"] = None
            warnings.append(f"{lost}; {'the last is tested' if part['at'] == 'end' else 'the best is looked for anew'}")
        return cls(path, part, warnings)

    def is_finished(self, trainer: dict[str, Any]) -> bool:
        """Whether training had come to its end, under limits that are still the same; then only the test is left."""
        return self.part is not None and self.part["hook"] == "on_fit_end" and self.part["limits"] == limits(trainer)

    def check(self, run: RunDirectory, trainer: dict[str, Any], fingerprint: str | None) -> None:
        """
        Raises:
            UserError: if the data are others by now, or training is to end before what has been done.
        """
        if self.part is None:
            return
        if self.part["data"] != fingerprint:
            raise UserError(
                f"the data are not those that {run.path} was trained on so far (their fingerprint is another): "
                "set data.root to where those are, or train anew"
            )
        epochs, inside = self.part["epoch"], self.part["batch"] > 0
        last = trainer["max_epochs"]
        if last is not None and last >= 0 and epochs + inside > last:
            raise UserError(f"trainer.max_epochs={last}: {run.path} has been trained for longer than that")

    def prepare(self, run: RunDirectory) -> None:
        """Put the files of the run back to where this checkpoint was saved. Rank zero alone calls it."""
        if self.checkpoint == run.previous:
            link(run.previous, run.last)  # or the next save would put the damaged one in place of it
        sweep(run.path)
        if run.checkpoints.is_dir():
            sweep(run.checkpoints)
        warnings = self.warnings + cut_back(run.path, self.part["sizes"] if self.part else {})
        if self.part and self.part["best"] and self.part["best"]["step"] == self.part["step"]:
            assert self.checkpoint is not None
            link(self.checkpoint, run.best)  # the process may have ended between the two names
        for line in warnings:
            _log.warning(line)
            print(f"litlab: {line}", file=sys.stderr)


def _from_the_beginning(run: RunDirectory) -> list[str]:
    """
    Raises:
        UserError: if there was a checkpoint once.
    """
    if run.best.exists() and "litlab" in read_checkpoint(run.best):
        raise UserError(
            f"{run.checkpoints} has lost last.ckpt and previous.ckpt, so {run.path} cannot go on; "
            "put a copy of one of them back, or train anew in another directory"
        )
    return [f"{run.path} had not come to its first checkpoint; it begins anew"] if run.metrics.exists() else []


def limits(trainer: dict[str, Any]) -> dict[str, Any]:
    """When training ends, by the config."""
    return {key: trainer.get(key) for key in LIMITS}


def lost_best(run: RunDirectory, part: dict[str, Any]) -> str | None:
    """Why best.ckpt is not the one that was the best at the checkpoint; None if it is, or will be."""
    best = part["best"]
    if best is None or best["step"] == part["step"]:
        return None
    try:
        step = read_checkpoint(run.best)["global_step"]
    except UserError as error:
        return str(error)
    return None if step == best["step"] else f"{run.best} is of step {step}, a later one"
