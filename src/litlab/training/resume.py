"""Resume state of a run: its newest intact checkpoint, and its files as they were when that was saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.runs.append_only_files import truncate_appended
from litlab.runs.directory import RunDirectory
from litlab.runs.files import hard_link, remove_temporary_files
from litlab.training.checkpoint_io import find_newest_checkpoint, read_checkpoint


@dataclass(frozen=True)
class ResumeState:
    """State that a run resumes from.

    Attributes:
        checkpoint: Newest intact checkpoint; None for a new run.
        saved: What litlab stored in it (`TrainState.add_to`); None for a new run.
        warnings: Messages for the user.
    """

    checkpoint: Path | None
    saved: dict[str, Any] | None
    warnings: list[str]

    @classmethod
    def find(cls, run: RunDirectory) -> "ResumeState":
        """Find the newest checkpoint of a run.

        Raises:
            UserError: If there are checkpoints, but none that can be used.
        """
        path, warnings = find_newest_checkpoint(run)
        if path is None:
            return cls(None, None, _check_new(run))
        if warnings:
            warnings.append(f"resuming from the one before it, {path}")
        saved = read_checkpoint(path).get("litlab")
        if not isinstance(saved, dict) or saved.get("format") != 2 or "hook" not in saved:
            raise UserError(f"{path} was not saved by a run of this version of litlab, so it cannot be resumed from")
        if problem := find_best_problem(run, saved):
            saved["best"] = None
            finished = saved["hook"] == "on_fit_end"
            warnings.append(
                f"{problem}; {'the last one is tested' if finished else 'the search for the best restarts'}"
            )
        return cls(path, saved, warnings)

    def is_finished(self, trainer: dict[str, Any]) -> bool:
        """Check that training ended, so that only the test is left: under the same limits, or before it reached them.

        With later limits from the start, a training that a callback stopped would have ended at the same step.
        """
        saved = self.saved
        if saved is None or saved["hook"] != "on_fit_end":
            return False
        return saved["limits"] == get_limits(trainer) or saved["stop_reason"] is not None

    def check(self, run: RunDirectory, trainer: dict[str, Any], fingerprint: str | None) -> None:
        """Check that the run can be resumed with these settings and data.

        Args:
            run: Run directory.
            trainer: `trainer` of the config.
            fingerprint: Fingerprint of the data; None for a foreign data module.

        Raises:
            UserError: If the data have changed, or training is to end before what has been done.
        """
        if self.saved is None:
            return
        if self.saved["data"] != fingerprint:
            raise UserError(
                f"{run.path} was trained on other data so far (their fingerprint differs): set data.root to those, "
                "or train again"
            )
        max_epochs = trainer["max_epochs"]
        if max_epochs is not None and 0 <= max_epochs < self.saved["epoch"] + (self.saved["batch"] > 0):
            raise UserError(f"trainer.max_epochs={max_epochs}: {run.path} has been trained for longer than that")

    def restore_files(self, run: RunDirectory) -> None:
        """Set the files of the run back to when the checkpoint was saved. Only rank zero may call this."""
        if self.checkpoint == run.previous:
            hard_link(run.previous, run.last)  # or the next save would keep the damaged one as the previous one
        remove_temporary_files(run.path)
        if run.checkpoints.is_dir():
            remove_temporary_files(run.checkpoints)
        self.warnings.extend(truncate_appended(run.path, self.saved["sizes"] if self.saved else {}))
        if self.saved and self.saved["best"] and self.saved["best"]["step"] == self.saved["step"]:
            assert self.checkpoint is not None
            hard_link(self.checkpoint, run.best)  # the process may have ended between the two names


def get_limits(trainer: dict[str, Any]) -> dict[str, Any]:
    """Select the settings that say when training ends."""
    return {key: trainer.get(key) for key in ("max_epochs", "max_steps")}


def find_best_problem(run: RunDirectory, saved: dict[str, Any]) -> str | None:
    """Tell why best.ckpt is not the checkpoint that was the best one when this was saved; None if it is, or will be."""
    best = saved["best"]
    if best is None or best["step"] == saved["step"]:
        return None
    try:
        step = read_checkpoint(run.best)["global_step"]
    except UserError as error:
        return str(error)
    return None if step == best["step"] else f"{run.best} is of step {step}, a later one"


def _check_new(run: RunDirectory) -> list[str]:
    """Return warnings for a run without a checkpoint.

    Raises:
        UserError: If there was one once.
    """
    if run.best.exists() and "litlab" in read_checkpoint(run.best):
        raise UserError(
            f"{run.checkpoints} has lost last.ckpt and previous.ckpt, so {run.path} cannot be resumed; "
            "put a copy of one of them back, or train again in another directory"
        )
    return [f"{run.path} has no checkpoint yet; it starts from the beginning"] if run.metrics.exists() else []
