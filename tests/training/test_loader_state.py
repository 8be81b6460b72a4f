"""Loaders that cannot seek: a resumed run reads the batches of an uninterrupted one."""

from pathlib import Path

from reliability.runs import SMALL, seen
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until

OVERRIDES = (
    *SMALL, "data._target_=reliability.faults.Shuffled", "+data.num_workers=0", "trainer.val_check_interval=3",
)  # fmt: skip


def test_batches_of_a_torch_loader_after_a_resume(tmp_path: Path) -> None:
    whole, config = new_run(tmp_path / "whole", *OVERRIDES)
    train_until(whole, config, None)
    for number in (3, 5, 11):  # within an epoch, in a validation, at the start of the second epoch
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *OVERRIDES)
        assert set(seen(run)["seen.0"]) == set(seen(whole)["seen.0"])
        assert differences(outcome(whole), outcome(run)) == []
