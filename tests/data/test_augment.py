import numpy as np
import torch

from litlab.data.augment import CropFlip, shift_and_mirror


def slow_reference(image: np.ndarray, down: int, right: int, mirrored: bool, padding: int) -> np.ndarray:
    """Pad by reflection, cut the window out, mirror it: one image at a time."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    window = padded[:, padding + down : padding + down + height, padding + right : padding + right + width]
    return window[:, :, ::-1] if mirrored else window


def test_crop_and_flip_against_a_slow_reference() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 3, 9, 12), dtype=np.uint8)
    down, right = random.integers(-5, 6, (2, 200))
    mirrored = random.random(200) < 0.5
    fast = shift_and_mirror(*(torch.from_numpy(each) for each in (images, down, right, mirrored)))
    slow = [slow_reference(*each, padding=5) for each in zip(images, down, right, mirrored, strict=True)]
    np.testing.assert_array_equal(fast.numpy(), np.stack(slow))


def test_shifts_and_flips_are_uniform() -> None:
    """Read off from an image whose pixels say where they come from."""
    num_images, padding = 4000, 2
    pixels = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7).expand(num_images, 1, 7, 7)
    augmented = CropFlip(seed=0, crop_padding=padding, flip=True)(pixels, torch.arange(num_images), 0)
    centre = augmented[:, 0, 3, 3].long() - 24
    down, right = (centre + 3).div(7, rounding_mode="floor"), (centre + 3) % 7 - 3
    flipped = augmented[:, 0, 3, 2] > augmented[:, 0, 3, 4]
    for shifts in (down, right):
        counts = torch.bincount(shifts + padding, minlength=5)
        assert len(counts) == 5
        assert (counts - num_images / 5).abs().max() < 110  # 4 deviations
    assert abs(int(flipped.sum()) - num_images / 2) < 130
    agreement = torch.corrcoef(torch.stack([down, right, flipped]).double())
    assert agreement.fill_diagonal_(0).abs().max() < 0.06


def test_parts_can_be_switched_off() -> None:
    images, indices = torch.arange(2 * 25, dtype=torch.uint8).view(2, 1, 5, 5), torch.arange(2)
    assert torch.equal(CropFlip(seed=0, crop_padding=0, flip=False)(images, indices, 0), images)
    many = images[:1].expand(50, 1, 5, 5)
    flips = CropFlip(seed=0, crop_padding=0, flip=True)(many, torch.arange(50), 0)
    assert {tuple(each.flatten().tolist()) for each in flips} == {
        tuple(images[0].flatten().tolist()),
        tuple(images[0].flip(2).flatten().tolist()),
    }
    crops = CropFlip(seed=0, crop_padding=1, flip=False)(many, torch.arange(50), 0)
    assert len({int(each[0, 2, 2]) for each in crops}) == 9
    assert all(int(each[0, 2, 2]) < int(each[0, 2, 3]) or int(each[0, 2, 2]) % 5 == 3 for each in crops)


def test_depends_on_the_index_not_on_the_place_in_the_batch() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=random)
    indices, order = torch.arange(100, 164), torch.randperm(64, generator=random)
    augment = CropFlip(seed=7, crop_padding=4, flip=True)
    assert torch.equal(augment(images, indices, 2)[order], augment(images[order], indices[order], 2))
