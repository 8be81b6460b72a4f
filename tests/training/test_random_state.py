"""Random numbers after their generators are restored."""

import random
from pathlib import Path

import numpy as np
import torch

from litlab.training.random_state import get_random_state, set_random_state

CPU = torch.device("cpu")


def _draws() -> list[float]:
    gauss = [random.gauss(0, 1), np.random.randn(), torch.randn(()).item()]
    return [*gauss, random.random(), np.random.rand(), torch.rand(()).item()]


def test_random_numbers_continue(tmp_path: Path) -> None:
    _draws()  # leaves half a pair of normal numbers in Python's and NumPy's generators
    torch.save(get_random_state(CPU), tmp_path / "state.pt")
    expected = _draws()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert _draws() != expected
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert _draws() == expected
