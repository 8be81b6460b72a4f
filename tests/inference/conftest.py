"""A saved run, and an image."""

from pathlib import Path

import pytest
import torch
from support.saved_run import CNN_NODE, SIZE, make_info, make_network, make_run
from torch import Tensor


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_network(), CNN_NODE, make_info())


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
