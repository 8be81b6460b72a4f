"""Low light: values against a scalar reference, the noise against its distribution, equality over everything else."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.exact_resume import differences
from support.images import write_folder

from litlab.data.image_folder import ImageFolder
from litlab.data.low_light import LowLight, PoissonTable, draw_poisson, to_levels
from litlab.data.module import ImageDataModule
from litlab.data.random_numbers import random_bits
from litlab.errors import UserError

SETTINGS: dict[str, Any] = {"stops": [2, 8], "photons": 4000, "read_noise": 1}
MODEL = LowLight.from_settings(SETTINGS)
NUM_DRAWN = 40_000
KOLMOGOROV = 2 / math.sqrt(NUM_DRAWN)  # a larger distance has a probability of 7e-4; the random numbers are fixed


def linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def level_of(light: float) -> int:
    """Convert linear light by the published formula of sRGB."""
    light = min(max(light, 0.0), 1.0)
    value = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
    return math.floor(255 * value + 0.5)


def bits(num: int, key: int) -> np.ndarray:
    values: np.ndarray = random_bits(torch.arange(num), key).numpy()
    return values


@pytest.mark.parametrize("stops", [0.0, 1.0, 2.5, 4.321, 8.0])
def test_images_without_noise_are_those_of_the_formulas(stops: float) -> None:
    light = MODEL.expected_electrons([stops])[0] / MODEL.photons
    expected = [level_of(linear(level / 255) / 2**stops) for level in range(256)]
    assert to_levels(light).tolist() == expected
    assert expected[0] == 0
    assert stops or expected == list(range(256))


def test_any_light_gets_the_nearest_level() -> None:
    light = np.concatenate([np.random.default_rng(0).uniform(-0.1, 1.2, 2000), np.logspace(-6, 0, 2000)])
    assert to_levels(light).tolist() == [level_of(value) for value in light.tolist()]


@pytest.mark.parametrize("rates", [range(256), [0, 256, 1024, 25_600, 65_280]])
def test_tables_invert_the_distribution_function(rates: range | list[int]) -> None:
    table, random = PoissonTable(np.array(rates, dtype=np.float64)), bits(len(rates) * 40, 1) >> 33 & (2**31 - 1)
    random[:2] = 0, 2**31 - 1
    rows = np.arange(len(random)) % len(rates)
    expected = stats.poisson.ppf((random + 0.5) / 2**31, np.array(rates)[rows])
    numbers = table.draw(rows, random)
    tail = random == 2**31 - 1  # the last of 2**31 equal parts has many numbers
    assert numbers[~tail].tolist() == expected[~tail].tolist()


@pytest.mark.parametrize("rate", [0.0, 0.004, 0.7, 1.0, 9.99, 63.4, 255.9, 256.0, 1000.25, 5000.9])
def test_electrons_are_poisson(rate: float) -> None:
    drawn = draw_poisson(np.array([rate]), np.zeros(NUM_DRAWN, dtype=np.int64), bits(NUM_DRAWN, 2), bits(NUM_DRAWN, 3))
    error = math.sqrt(rate / NUM_DRAWN)
    assert abs(drawn.mean() - rate) <= 4 * error
    assert abs(drawn.var() - rate) <= 4 * math.sqrt((2 * rate**2 + rate) / NUM_DRAWN)
    numbers = np.unique(drawn)
    below = np.searchsorted(np.sort(drawn), numbers, side="right") / NUM_DRAWN
    assert np.abs(below - stats.poisson.cdf(numbers, rate)).max() < KOLMOGOROV


@pytest.mark.parametrize("level", [0, 12, 90, 255])
@pytest.mark.parametrize(("photons", "read_noise"), [(4000, 1), (500, 3), (30_000, 0)])
def test_levels_are_distributed_as_the_model_says(level: int, photons: int, read_noise: int) -> None:
    model = LowLight.from_settings({"stops": 4, "photons": photons, "read_noise": read_noise})
    images = np.full((4, 1, 100, 100), level, dtype=np.uint8)
    drawn = model.darken(images, "train", torch.arange(4)).ravel()
    rate = photons * linear(level / 255) / 16
    numbers = np.arange(int(rate + 10 * math.sqrt(rate)) + 20)
    for other in range(0, 255, 3):
        limit = photons * linear((other + 0.5) / 255)  # electrons from which a pixel has a higher level
        below = stats.norm.cdf((limit - numbers) / read_noise) if read_noise else numbers < limit
        expected = (stats.poisson.pmf(numbers, rate) * below).sum()
        assert abs((drawn <= other).mean() - expected) < KOLMOGOROV


def test_read_noise_is_normal() -> None:
    model = LowLight.from_settings({"stops": 0, "photons": 3_000, "read_noise": 100})  # noise alone, half of it clipped
    black = model.darken(np.zeros((4, 1, 100, 100), dtype=np.uint8), "train", torch.arange(4))
    assert abs((black == 0).mean() - stats.norm.cdf(linear(0.5 / 255) * 30)) < KOLMOGOROV
    for limit in (40, 60, 80):
        expected = stats.norm.cdf(linear((limit + 0.5) / 255) * 30)
        assert abs((black <= limit).mean() - expected) < KOLMOGOROV


def test_stops_are_uniform_and_each_image_has_its_own() -> None:
    stops = MODEL.image_stops("train", torch.arange(4000))
    assert stats.kstest(stops, stats.uniform(2, 6).cdf).statistic < 2 / math.sqrt(4000)
    assert len(set(stops)) > 3990
    assert LowLight.from_settings({**SETTINGS, "stops": 3}).image_stops("test", torch.arange(3)) == [3.0] * 3


def test_darker_images_are_darker_and_black_stays_black() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (40, 1, 8, 1))
    means = []
    for stops in (1, 3, 5, 7):
        model = LowLight.from_settings({**SETTINGS, "stops": stops})
        dark = model.darken(ramp, "test", torch.arange(40))
        means.append(dark.mean())
        columns = dark.mean(axis=(0, 1, 2)).reshape(16, 16).mean(axis=1)
        assert (np.diff(columns) > 0).all()
        assert dark[..., 0].max() <= 4  # five deviations of the read noise
    assert means == sorted(means, reverse=True)


def test_an_image_depends_on_seed_split_and_row_alone() -> None:
    images = np.random.default_rng(1).integers(0, 256, (50, 3, 24, 20), dtype=np.uint8)
    rows = torch.arange(100, 150)
    whole = MODEL.darken(images, "train", rows)
    assert whole.shape == images.shape
    for row in (0, 31, 32, 49):
        assert np.array_equal(MODEL.darken(images[row : row + 1], "train", rows[row : row + 1])[0], whole[row])
    order = torch.arange(49, -1, -3)
    assert np.array_equal(MODEL.darken(images[order.numpy()], "train", rows[order]), whole[order.numpy()])
    others = [
        MODEL.darken(images, "test", rows),
        MODEL.darken(images, "train", rows + 1),
        LowLight.from_settings({**SETTINGS, "seed": 1}).darken(images, "train", rows),
    ]
    assert all((other != whole).mean() > 0.5 for other in others)
    assert MODEL.darken(images[:0], "train", rows[:0]).shape == (0, 3, 24, 20)


def test_the_images_of_published_studies_stay_the_same() -> None:
    values = np.arange(60 * 3 * 32 * 32) * 2654435761 % 2**32 >> 24
    dark = MODEL.darken(values.astype(np.uint8).reshape(60, 3, 32, 32), "test", torch.arange(50, 110))
    digest = "c95234a23ab4e922cbb028e5db7409ce4651976e8a69bf05062a40f878d47309"
    assert hashlib.sha256(dark.tobytes()).hexdigest() == digest


def test_every_split_of_a_data_module_is_dark(make_module: Callable[..., ImageDataModule]) -> None:
    plain, dark = make_module(), make_module(low_light=SETTINGS)
    for split in ("train", "test"):
        before, after = (getattr(module.arrays, f"{split}_images") for module in (plain, dark))
        expected = MODEL.darken(before.numpy(), split, torch.arange(len(before)))
        assert np.array_equal(after.numpy(), expected)
        labels = (getattr(module.arrays, f"{split}_labels") for module in (plain, dark))
        assert torch.equal(*labels)
    assert dark.val_indices.tolist() == plain.val_indices.tolist()
    pixels = dark.arrays.train_images[dark.train_indices].double() / 255
    torch.testing.assert_close(torch.tensor(dark.info.mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    note = "darkened by 2 to 8 stops, with 4,000 photons at white before and read noise of 1 (data.low_light)"
    assert dark.info.notes == (note, *plain.info.notes)
    assert dark.info.class_names == plain.info.class_names
    assert dark.info.fingerprint != plain.info.fingerprint
    assert make_module(low_light=SETTINGS, seed=7).info == dark.info, "runs of all seeds see the same data"


def test_dark_images_are_computed_once(
    folder_module: Callable[..., ImageFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "images")

    def made(**changes: Any) -> ImageFolder:
        module = folder_module(low_light={**SETTINGS, **changes}, val_size=6)
        module.prepare_data()
        module.setup()
        return module

    first = made()
    with monkeypatch.context() as patches:
        patches.delattr(LowLight, "darken")
        again = made()
    assert torch.equal(again.arrays.train_images, first.arrays.train_images)
    assert again.info == first.info
    for changes in ({"stops": [2, 7]}, {"photons": 3999}, {"read_noise": 0}, {"seed": 1}):
        assert made(**changes).info.fingerprint != first.info.fingerprint


def test_a_stream_is_as_dark_as_memory(folder_module: Callable[..., ImageFolder], tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    modules = [folder_module(low_light=SETTINGS, val_size=6, storage=storage) for storage in ("memory", "stream")]
    for module in modules:
        module.prepare_data()
        module.setup()
    memory, stream = modules
    assert stream.info == memory.info
    assert differences(list(stream.test_dataloader()), list(memory.test_dataloader())) == []
    assert differences(list(stream.val_dataloader()), list(memory.val_dataloader())) == []
    (tmp_path / "images" / "test" / "cat" / "00.jpg").write_bytes(b"no image")
    changed = folder_module(low_light={**SETTINGS, "seed": 3}, val_size=6, storage="stream")
    changed._key = memory._key  # the file has changed since its statistics were computed
    with pytest.raises(UserError, match=r"00\.jpg can't be read as a JPEG, PNG or WebP image"):
        changed.setup()
