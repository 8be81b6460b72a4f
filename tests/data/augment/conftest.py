import pytest
from support.pixels import awkward_images
from torch import Tensor


@pytest.fixture(scope="module")
def images() -> Tensor:
    return awkward_images()
