"""Print how far staged training moved the gates of a study: python src/gate_changes.py outputs/front_ends."""

import sys
from pathlib import Path

import torch


def largest_change(run: Path, *, of_gate: bool) -> float:
    """Return the largest change of a parameter in the last epoch of a run.

    Args:
        run: Run directory.
        of_gate: Whether to look at the gate, or at all other parameters.
    """
    before, after = (
        torch.load(run / "checkpoints" / name, weights_only=True) for name in ("previous.ckpt", "last.ckpt")
    )
    parameters = [
        name for name in after["litlab"]["modules"]["requires_grad"] if name.startswith("network.gate.") == of_gate
    ]
    changes = [after["state_dict"][name] - before["state_dict"][name] for name in parameters]
    return max(change.abs().max().item() for change in changes)


if __name__ == "__main__":
    for run in sorted(Path(sys.argv[1]).glob("*_dgam_hard_*")):
        gate, others = largest_change(run, of_gate=True), largest_change(run, of_gate=False)
        print(f"{run.name}  gate {gate:.3g}  others {others:.3g}")
