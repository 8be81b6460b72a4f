"""The tutorial network."""

import pytest
import torch
import torch.nn.functional as F

from litlab.errors import UserError
from litlab.models.cnn import CNN


def test_is_the_network_of_the_tutorial() -> None:
    network = CNN(num_classes=10, image_shape=(3, 32, 32), widths=(6, 16), hidden=(120, 84))
    weights = list(network.state_dict().values())
    images = torch.randn(2, 3, 32, 32)
    features = images
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        features = F.max_pool2d(F.relu(F.conv2d(features, weight, bias)), 2)
    assert features.shape == (2, 16, 5, 5)
    features = features.flatten(1)
    for weight, bias in zip(weights[4:8:2], weights[5:8:2], strict=True):
        features = F.relu(F.linear(features, weight, bias))
    torch.testing.assert_close(network(images), F.linear(features, weights[8], weights[9]))


@pytest.mark.parametrize(("widths", "smallest"), [((6,), 6), ((6, 16), 16), ((6, 16, 32), 36)])
def test_too_small_images_are_refused(widths: tuple[int, ...], smallest: int) -> None:
    network = CNN(num_classes=2, image_shape=(1, smallest, smallest), widths=widths, hidden=())
    assert network(torch.zeros(1, 1, smallest, smallest)).shape == (1, 2)
    with pytest.raises(
        UserError, match=f"at least {smallest}x{smallest} pixels, but these are {smallest}x{smallest - 1}"
    ):
        CNN(num_classes=2, image_shape=(1, smallest, smallest - 1), widths=widths, hidden=())
