"""Mixup and cutmix against a few lines of NumPy, and their distributions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from litlab.data.augment import Mixing

BOTH = Mixing(seed=5, mixup=0.8, cutmix=1.0)
MIXUP, CUTMIX = Mixing(seed=5, mixup=0.8, cutmix=0), Mixing(seed=5, mixup=0, cutmix=1.0)


def make_batch(num_images: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, their partners and indices."""
    random = torch.Generator().manual_seed(0)
    images, partners = torch.randn(2, num_images, 3, 9, 12, generator=random)
    return images, partners, torch.arange(50, 50 + num_images)


def test_mixup_against_a_slow_reference() -> None:
    images, partners, indices = make_batch()
    mixed, lam = MIXUP(images, partners, indices, 3)
    assert lam.dtype == torch.float32
    assert lam.std() > 0.2
    for row, own in enumerate(lam.tolist()):
        expected = own * images[row].numpy() + (1 - own) * partners[row].numpy()
        np.testing.assert_allclose(mixed[row].numpy(), expected, atol=1e-6)


def test_cutmix_against_a_slow_reference() -> None:
    """Compare with the paper's own code: floor of half the cut on both sides of a pixel, clipped."""
    images, partners, indices = make_batch()
    mixed, lam = CUTMIX(images, partners, indices, 3)
    boxes = CUTMIX.cutmix_boxes(indices, 3, 9, 12)
    for row, (top, bottom, left, right) in enumerate(zip(*(side.tolist() for side in boxes), strict=True)):
        assert 0 <= top <= bottom <= 9
        assert 0 <= left <= right <= 12
        expected = images[row].clone()
        expected[:, top:bottom, left:right] = partners[row, :, top:bottom, left:right]
        assert torch.equal(mixed[row], expected)
        own = (mixed[row] == images[row]).double().mean()
        assert lam[row].item() == pytest.approx(own.item(), abs=1e-6)
    assert len({tuple(box) for box in torch.stack(boxes, 1).tolist()}) > 100


def test_the_box_has_the_drawn_area_before_it_is_clipped() -> None:
    """Use images so large that rounding to pixels does not count: boxes inside have 1 - Beta of the area."""
    size, indices = 1000, torch.arange(20_000)
    top, bottom, left, right = Mixing(seed=1, mixup=0, cutmix=1.0).cutmix_boxes(indices, 0, size, size)
    inside = (top > 0) & (bottom < size) & (left > 0) & (right < size)
    areas = ((bottom - top) * (right - left))[inside] / size**2
    # A side s is inside with probability (1 - s)^2; of s^2 uniform that leaves a density in proportion to s (1 - s)^2.
    sides = areas.sqrt().numpy()
    assert stats.kstest(sides, stats.beta(2, 3).cdf).pvalue > 0.001
    assert ((bottom - top) == (right - left))[inside].all()
    assert stats.kstest(((top + bottom) / 2 / size)[inside & (bottom - top < 20)].numpy(), "uniform").pvalue > 0.001


def test_with_both_each_image_takes_one_of_them() -> None:
    images, partners, indices = make_batch(4000)
    mixed, lam = BOTH(images, partners, indices, 3)
    boxed = BOTH.uses_cutmix(indices, 3)
    assert abs(int(boxed.sum()) - 2000) < 130  # 4 deviations
    for part, mixing in ((boxed, CUTMIX), (~boxed, MIXUP)):
        alone, alone_lam = mixing(images, partners, indices, 3)
        assert torch.equal(mixed[part], alone[part])
        assert torch.equal(lam[part], alone_lam[part])


def test_without_either_images_stay() -> None:
    off = Mixing(seed=5, mixup=0, cutmix=0)
    images, partners, indices = make_batch(4)
    mixed, lam = off(images, partners, indices, 3)
    assert not off.active
    assert BOTH.active
    assert torch.equal(mixed, images)
    assert lam.tolist() == [1] * 4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_is_distributed_as_beta(alpha: float) -> None:
    blank = torch.zeros(20_000, 1, 1, 1)
    _, lam = Mixing(seed=0, mixup=alpha, cutmix=0)(blank, blank, torch.arange(20_000), 0)
    # Of alpha 0.2, 2 % are closer to each end than float32 tells apart, which the test would take for steps.
    inside = lam[(lam > 1e-6) & (lam < 1 - 1e-6)].double().numpy()
    low, high = stats.beta(alpha, alpha).cdf([1e-6, 1 - 1e-6])
    assert abs(len(inside) - (high - low) * len(lam)) < 150  # 3 deviations
    assert stats.kstest(inside, lambda x: (stats.beta(alpha, alpha).cdf(x) - low) / (high - low)).pvalue > 0.001


def test_partners_are_any_members_for_any_split_of_the_batch() -> None:
    members = torch.arange(0, 1000, 7)
    indices = members.repeat(70)[: 70 * 143] + 1000 * torch.arange(70).repeat_interleave(143)
    partners = BOTH.partners(indices, members, 4)
    counts = torch.bincount(partners, minlength=1000)[members]
    assert int(counts.sum()) == len(indices)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    assert torch.equal(torch.cat([BOTH.partners(part, members, 4) for part in indices.split(999)]), partners)
    assert not torch.equal(BOTH.partners(indices, members, 5), partners)


def test_an_image_does_not_depend_on_its_batch() -> None:
    images, partners, indices = make_batch(64)
    mixed, lam = BOTH(images, partners, indices, 3)
    for sizes in ([0, 64], [1, 63], [13, 50, 1]):
        parts = [
            BOTH(*part, 3) for part in zip(*(rows.split(sizes) for rows in (images, partners, indices)), strict=True)
        ]
        for whole, pieces in zip((mixed, lam), zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(pieces), whole)
    for mixing, epoch in ((BOTH, 4), (replace(BOTH, seed=6), 3)):
        assert (mixing(images, partners, indices, epoch)[1] != lam).float().mean() > 0.9


def test_memory_format_and_precision_stay() -> None:
    images, partners, indices = make_batch(8)
    wide = [batch.to(torch.bfloat16, memory_format=torch.channels_last) for batch in (images, partners)]
    mixed, lam = BOTH(*wide, indices, 3)
    assert mixed.dtype == torch.bfloat16
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert lam.dtype == torch.float32
    torch.testing.assert_close(mixed.float(), BOTH(images, partners, indices, 3)[0], atol=0.05, rtol=0.02)
