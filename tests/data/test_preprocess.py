import numpy as np
import torch
from PIL import Image

from litlab.data.preprocess import Preprocess


def test_normalizes_by_hand_computed_values() -> None:
    preprocess = Preprocess(image_size=(1, 2), mean=(0.5, 0.2), std=(0.25, 0.1))
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(preprocess(images), expected, rtol=0, atol=1e-6)
    assert images[0, 0, 0].tolist() == [0, 255]


def test_resizes_as_the_decoder_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    decoded = np.asarray(Image.fromarray(pixels).resize((32, 24), Image.Resampling.BILINEAR))
    preprocess = Preprocess(image_size=(24, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    resized = preprocess(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0] * 255
    assert resized.shape == (3, 24, 32)
    assert np.abs(resized.numpy().transpose(1, 2, 0) - decoded).max() < 1.01  # one gray level


def test_keeps_nothing_in_a_checkpoint_and_follows_its_network() -> None:
    preprocess = Preprocess(image_size=(2, 2), mean=(0.5,), std=(0.5,))
    assert preprocess.state_dict() == {}
    assert preprocess.double()(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).dtype == torch.float64
