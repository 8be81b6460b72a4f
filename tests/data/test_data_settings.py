"""Settings of the data: what a batch is like under them, and what is said of those that don't fit."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule
from support.runs import TINY, compose_config
from torch import nn
from torch.nn import functional

from litlab.data.augment.progressive_resizing import epoch_size, shrink
from litlab.data.module import ImageDataModule, check_network, check_task
from litlab.data.shapes import Shapes
from litlab.errors import UserError

Make = Callable[..., Shapes]


def made(make: Make, **changes: Any) -> Shapes:
    module = make(num_train=60, num_test=20, val_size=10, **changes)
    module.setup()
    return module


class Task(LightningModule):
    """A task that trains nothing; with a network or without."""

    def __init__(self, network: nn.Module | None = None, *, supports_mixed_targets: bool = True) -> None:
        super().__init__()
        self.network = network
        self.supports_mixed_targets = supports_mixed_targets
        self.memory_format = torch.contiguous_format


def under_trainer(module: ImageDataModule, task: Task) -> ImageDataModule:
    """As if Lightning had attached its Trainer, with what a data module asks it for."""
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=task,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=0,
        world_size=1,
        max_epochs=4,
    )
    return module


def test_images_come_in_the_type_and_format_of_the_network(shapes_module: Make) -> None:
    plain = made(shapes_module)
    batch = next(iter(plain.train_dataloader()))
    expected = plain.transform_batch(batch, epoch=1).images
    assert (expected.dtype, expected.is_contiguous()) == (torch.float32, True)
    task = Task().to(torch.bfloat16)
    task.memory_format = torch.channels_last
    images = under_trainer(made(shapes_module), task).transform_batch(batch, epoch=1).images
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.bfloat16
    assert torch.equal(images, expected.bfloat16())


def test_images_in_memory_are_moved_once_for_all_loaders(shapes_module: Make) -> None:
    module = under_trainer(made(shapes_module), Task())
    train, val = module.train_dataloader(), module.val_dataloader()
    assert train.images.data_ptr() == val.images.data_ptr() == module.arrays.train_images.data_ptr()  # type: ignore[union-attr]
    module.trainer.strategy.root_device = torch.device("meta")  # type: ignore[union-attr]
    moved = module.train_dataloader()
    assert moved.images.is_meta  # type: ignore[attr-defined]
    assert moved.sampler.indices.is_meta
    assert moved.images is module.val_dataloader().images  # type: ignore[attr-defined, union-attr]
    batch = next(iter(moved))
    assert batch.images.is_meta
    assert (batch.num_valid, batch.images.shape) == (16, (16, 3, 32, 32))
    assert module.transfer_batch_to_device(batch, torch.device("meta"), 0) is batch


def test_mixing_takes_each_partner_as_it_would_be_itself(shapes_module: Make) -> None:
    mixed, plain = made(shapes_module, mixup=0.4, cutout=8), made(shapes_module, cutout=8)
    batch = next(iter(mixed.train_dataloader()))
    assert batch.partners is not None
    assert set(batch.partners.indices.tolist()) <= set(mixed.train_indices.tolist())
    assert torch.equal(batch.partners.labels, mixed.arrays.train_labels[batch.partners.indices])
    finished = mixed.transform_batch(batch, epoch=3)
    assert finished.partners is not None
    assert finished.partners.lam is not None
    own = plain.transform_batch(batch._replace(partners=None), epoch=3).images
    theirs = batch._replace(images=batch.partners.images, indices=batch.partners.indices, partners=None)
    lam = finished.partners.lam[:, None, None, None]
    expected = lam * own + (1 - lam) * plain.transform_batch(theirs, epoch=3).images
    torch.testing.assert_close(finished.images, expected, rtol=0, atol=1e-5)
    assert next(iter(mixed.val_dataloader())).partners is None  # type: ignore[arg-type]


def test_shrinking_is_antialiased_bilinear_resampling() -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for size in (32, 24, 16, 9):
        expected = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(shrink(images, size), expected, rtol=0, atol=2e-6)


def test_each_size_has_an_equal_share_of_the_epochs(shapes_module: Make) -> None:
    assert [epoch_size([16, 24, 32], epoch, 7) for epoch in range(8)] == [16, 16, 16, 24, 24, 32, 32, 32]
    assert [epoch_size([24, 32], epoch, 1) for epoch in range(2)] == [24, 24]
    module = under_trainer(made(shapes_module, progressive_sizes=[24, 32]), Task())
    batch = next(iter(module.train_dataloader()))
    sizes = [module.transform_batch(batch, epoch=epoch).images.shape[-1] for epoch in (0, 1, 2, 3, None)]
    assert sizes == [24, 24, 32, 32, 32]


def test_what_does_not_fit_the_images_is_said(shapes_module: Make) -> None:
    for message, keys in {
        r"data\.cutout=33: .* larger than the images \(32 pixels\)": {"cutout": 33},
        r"progressive_sizes=\[24\]: the last must be the images' own size, which is 32x32": {"progressive_sizes": [24]},
        r"progressive_sizes=\[4, 32\]: expected sizes from 8 .*; found 4": {"progressive_sizes": [4, 32]},
        r"progressive_sizes=\[48, 32\]: expected sizes .*; found 48": {"progressive_sizes": [48, 32]},
    }.items():
        with pytest.raises(UserError, match=message):
            made(shapes_module, **keys)


def test_a_setting_that_is_missing_or_unknown_is_named(shapes_module: Make) -> None:
    settings: dict[str, Any] = {**shapes_module().settings, "mixed": 0.2}
    del settings["mixup"]
    with pytest.raises(UserError, match=r"data: Shapes has no mixed, lacks mixup. Add `defaults: \[base/images\]`"):
        Shapes(num_train=9, num_test=9, data_seed=0, **settings)


def test_progressive_sizes_need_an_end() -> None:
    with pytest.raises(UserError, match=r"data\.progressive_sizes: .*set trainer\.max_epochs=N"):
        compose_config(*TINY, "data.progressive_sizes=[24,32]", "trainer.max_epochs=-1", "+trainer.max_steps=9")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.flip=sometimes", "data.flip=sometimes: expected"),
        ("data.mixup=-1", "data.mixup=-1"),
        ("data.color_jitter={brightness:0.4}", "data.color_jitter.contrast: a value is missing"),
        ("data.rand_augment={num_ops:2,magnitude:31}", "data.rand_augment.magnitude=31"),
        ("data.color_jitter={brightness:0.4,contrast:0,saturation:0,hue:0.6}", "data.color_jitter.hue=0.6"),
    ],
)
def test_values_out_of_range_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose_config(*TINY, override)


def test_a_task_that_knows_nothing_of_partners_is_refused(shapes_module: Make) -> None:
    module = made(shapes_module, cutmix=1.0)
    with pytest.raises(UserError, match="would learn from mixed images as if each had one label"):
        check_task(Task(supports_mixed_targets=False), module.mixing)
    check_task(Task(supports_mixed_targets=False), made(shapes_module).mixing)


def test_looking_at_the_network_leaves_it_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_network(Task(network), [16, 32], 3)
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"Sequential can't take images of 16x16"):
        check_network(Task(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))), [16, 32], 3)
