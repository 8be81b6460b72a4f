"""One suite over all data modules, then single settings."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from support.loaders import attach_trainer, training_loader
from support.runs import TINY, compose_config
from torch import nn

from litlab.data.dataset_info import DatasetInfo
from litlab.data.loader import Batch, BatchLoader
from litlab.data.module import ImageDataModule, check_image_shape, check_network, check_task
from litlab.data.shapes import Shapes
from litlab.errors import UserError
from litlab.testing import DataSuite, MakeData

Make = Callable[..., ImageDataModule]


def epoch_batches(module: ImageDataModule, epoch: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
    """Return the augmented training batches of one rank."""
    loader = training_loader(module, epoch, rank, world_size)
    return [module.transform_batch(batch, epoch=epoch) for batch in loader]


class TestModules(DataSuite):
    @pytest.fixture
    def make_data(self, make_module: Make) -> MakeData:
        return lambda seed: make_module(seed=seed)


def test_info_is_complete_and_consistent(make_module: Make) -> None:
    module = make_module()
    info, arrays = module.info, module.arrays
    assert info.num_classes == len(set(info.class_names)) >= 2
    assert info.image_shape == tuple(arrays.train_images.shape[1:]) == tuple(arrays.test_images.shape[1:])
    assert info.num_train + info.num_val == len(arrays.train_images)
    assert (info.num_val, info.num_test) == (20, len(arrays.test_images))
    assert set(arrays.train_labels.tolist()) == set(arrays.test_labels.tolist()) == set(range(info.num_classes))
    assert info.statistics_source == f"computed from the {info.num_train:,} training images"
    pixels = arrays.train_images[module.train_indices].double() / 255  # none of validation
    torch.testing.assert_close(torch.tensor(info.mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(info.std).double(), pixels.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)
    assert DatasetInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


def test_classes_of_the_training_images_are_counted(make_module: Make) -> None:
    module = make_module(val_size=0.3)
    labels = [int(label) for batch in module.train_dataloader() for label in batch.labels[: batch.num_valid]]
    assert module.info.class_counts is not None
    assert list(module.info.class_counts) == [labels.count(label) for label in range(module.info.num_classes)]
    assert sum(module.info.class_counts) == module.info.num_train


def test_splits_are_disjoint_stratified_and_whole(make_module: Make) -> None:
    module = make_module()
    train, val = set(module.train_indices.tolist()), set(module.val_indices.tolist())
    assert not train & val
    assert train | val == set(range(len(module.arrays.train_labels)))
    num_classes = module.info.num_classes
    counts = torch.bincount(module.arrays.train_labels[module.val_indices], minlength=num_classes)
    expected = torch.bincount(module.arrays.train_labels) * 20 / len(module.arrays.train_labels)
    assert counts.sum() == 20
    assert (counts - expected).abs().max() < 1
    assert make_module(seed=9).val_indices.tolist() == module.val_indices.tolist()
    assert make_module(val_seed=1).val_indices.tolist() != module.val_indices.tolist()


def test_folds_cover_the_training_images(make_module: Make) -> None:
    modules = [make_module(folds=3, fold=fold) for fold in range(3)]
    labels = modules[0].arrays.train_labels
    assert sorted(row for module in modules for row in module.val_indices.tolist()) == list(range(len(labels)))
    for fold, module in enumerate(modules):
        assert sorted([*module.train_indices.tolist(), *module.val_indices.tolist()]) == list(range(len(labels)))
        counts = torch.bincount(labels[module.val_indices], minlength=module.info.num_classes)
        assert (counts - torch.bincount(labels) / 3).abs().max() < 1
        num_val = len(module.val_indices)
        assert module.info.num_val == num_val
        expected = f"validation on fold {fold} of 3 (data.fold): {num_val} images; data.val_size is not used"
        assert module.info.notes[-1] == expected
        pixels = module.arrays.train_images[module.train_indices].double() / 255  # none of the fold
        torch.testing.assert_close(torch.tensor(module.info.mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    assert len({module.info.fingerprint for module in modules}) == 1, "it is of the content alone"
    assert make_module(folds=3, fold=0, seed=9).val_indices.tolist() == modules[0].val_indices.tolist()
    assert make_module(folds=3, fold=0, val_seed=1).val_indices.tolist() != modules[0].val_indices.tolist()


def test_without_validation_data(make_module: Make) -> None:
    module = make_module(val_size=0, seed=5)
    assert module.val_dataloader() == []
    assert module.info.num_train == len(module.arrays.train_labels)
    assert module.info.fingerprint == make_module().info.fingerprint, "it is of the content alone"
    assert len(module.info.fingerprint) == 64


def test_loaders_give_the_rows_that_their_indices_name(make_module: Make) -> None:
    module = make_module()
    train, val, test = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
    assert isinstance(val, BatchLoader)
    arrays = module.arrays
    for loader, images, labels, rows in (
        (train, arrays.train_images, arrays.train_labels, module.train_indices),
        (val, arrays.train_images, arrays.train_labels, module.val_indices),
        (test, arrays.test_images, arrays.test_labels, torch.arange(module.info.num_test)),
    ):
        seen = []
        for batch in loader:
            assert torch.equal(batch.images, images[batch.indices])
            assert torch.equal(batch.labels, labels[batch.indices])
            assert batch.num_valid == batch.num_global == len(batch.labels)
            seen += batch.indices.tolist()
        assert sorted(seen) == rows.tolist()
        assert (seen == rows.tolist()) == (loader is not train)  # evaluation goes in order, training does not


def test_batches_depend_on_seed_and_epoch_and_on_no_global_state(make_module: Make) -> None:
    # (Python's own state is drawn from by beartype, which is switched on in these tests.)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = epoch_batches(make_module(), 3)
    for changed in (epoch_batches(make_module(), 4), epoch_batches(make_module(seed=1), 3)):
        assert not torch.equal(first[0].indices, changed[0].indices)
    list(make_module().test_dataloader())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]


def test_ranks_share_the_same_global_batches(make_module: Make) -> None:
    module = make_module()
    alone = epoch_batches(module, 1)
    for world_size in (2, 4):
        ranks = [epoch_batches(module, 1, rank, world_size) for rank in range(world_size)]
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert len({part.images.shape for part in parts}) == 1
            assert sum(part.num_valid for part in parts) == whole.num_valid
            assert all(part.num_global == whole.num_global for part in parts)
            for name in ("indices", "labels", "images"):
                joined = torch.cat([getattr(part, name)[: part.num_valid] for part in parts])
                assert torch.equal(joined, getattr(whole, name))


def test_values_against_a_plain_reference(make_module: Make) -> None:
    module = make_module(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5])
    assert module.info.statistics_source == "data.mean and data.std as configured"
    arrays = module.arrays
    module.prepare_data()
    module.setup("test")
    assert module.arrays is arrays, "the second call does nothing"
    batch = next(iter(module.test_dataloader()))
    images = module.transform_batch(batch, epoch=None).images
    mean, std = (np.array(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    expected = (batch.images.numpy().astype(np.float64) / 255 - mean) / std
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=2e-6)


class Task(LightningModule):
    """Task that trains nothing and keeps its batches."""

    def __init__(self, network: nn.Module | None = None, *, supports_mixed_targets: bool = True) -> None:
        super().__init__()
        self.network = network
        self.supports_mixed_targets = supports_mixed_targets
        self.memory_format = torch.contiguous_format
        self.seen: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Batch) -> None:
        self.seen["train"].append(batch)

    def validation_step(self, batch: Batch) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: Batch) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> None:
        return None


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_under_a_trainer(make_module: Make) -> None:
    """Check that Lightning sets the epoch, augments training only, and counts every image once."""
    module, recorder = make_module(), Task()
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=2, num_sanity_val_steps=1, **off)  # type: ignore[arg-type]
    trainer.fit(recorder, datamodule=module)
    trainer.test(recorder, datamodule=module, verbose=False)
    expected = epoch_batches(module, 0) + epoch_batches(module, 1)
    for batch, other in zip(recorder.seen["train"], expected, strict=True):
        assert torch.equal(batch.indices, other.indices)
        assert torch.equal(batch.images, other.images)
    for name, loader in (("val", module.val_dataloader()), ("test", module.test_dataloader())):
        plain = [module.transform_batch(batch, epoch=None) for batch in loader]
        for batch, other in zip(recorder.seen[name][-len(plain) :], plain, strict=True):
            assert torch.equal(batch.images, other.images)


def test_errors_of_common_keys(make_module: Make) -> None:
    smallest = min(make_module().info.image_shape[1:])
    cases: dict[str, dict[str, Any]] = {
        f"data.crop_padding={smallest} must be smaller than the images": {"crop_padding": smallest},
        "data.mean has 2 values, but the images have 3 channels": {"mean": [0.1, 0.2]},
        "data.std has 1 values, but the images have 3 channels": {"std": [0.1]},
        rf"data\.cutout=33: .* larger than the images \({smallest} pixels\)": {"cutout": 33},
        rf"\[12\]: the last must be the images' own size, which is {smallest}x{smallest}": {"progressive_sizes": [12]},
        rf"\[4, {smallest}\]: expected sizes from 8 .*; found 4": {"progressive_sizes": [4, smallest]},
        rf"\[48, {smallest}\]: expected sizes .*; found 48": {"progressive_sizes": [48, smallest]},
    }
    for message, keys in cases.items():
        with pytest.raises(UserError, match=message):
            make_module(**keys)


def made(make: Make, **changes: Any) -> Shapes:
    module = make(num_train=60, num_test=20, val_size=10, **changes)
    module.setup()
    return module


def test_images_have_the_dtype_and_memory_format_of_the_task(shapes_module: Make) -> None:
    plain = made(shapes_module)
    batch = next(iter(plain.train_dataloader()))
    expected = plain.transform_batch(batch, epoch=1).images
    assert (expected.dtype, expected.is_contiguous()) == (torch.float32, True)
    task = Task().to(torch.bfloat16)
    task.memory_format = torch.channels_last
    attach_trainer(plain, task)
    images = plain.transform_batch(batch, epoch=1).images
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.bfloat16
    assert torch.equal(images, expected.bfloat16())


def test_images_in_memory_are_moved_once_for_all_loaders(shapes_module: Make) -> None:
    module = made(shapes_module)
    attach_trainer(module, Task())
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


def test_partners_are_augmented_as_they_would_be_themselves(shapes_module: Make) -> None:
    mixed, plain = made(shapes_module, mixup=0.4, cutout=8), made(shapes_module, cutout=8)
    batch = next(iter(mixed.train_dataloader()))
    assert batch.partners is not None
    assert set(batch.partners.indices.tolist()) <= set(mixed.train_indices.tolist())
    assert torch.equal(batch.partners.labels, mixed.arrays.train_labels[batch.partners.indices])
    finished = mixed.transform_batch(batch, epoch=3)
    assert finished.partners is not None
    assert finished.partners.lam is not None
    own = plain.transform_batch(batch._replace(partners=None), epoch=3).images
    others = batch._replace(images=batch.partners.images, indices=batch.partners.indices, partners=None)
    lam = finished.partners.lam[:, None, None, None]
    expected = lam * own + (1 - lam) * plain.transform_batch(others, epoch=3).images
    torch.testing.assert_close(finished.images, expected, rtol=0, atol=1e-5)
    assert next(iter(mixed.val_dataloader())).partners is None  # type: ignore[arg-type]


def test_training_images_have_the_size_of_their_epoch(shapes_module: Make) -> None:
    module = made(shapes_module, progressive_sizes=[24, 32])
    attach_trainer(module, Task())
    batch = next(iter(module.train_dataloader()))
    sizes = [module.transform_batch(batch, epoch=epoch).images.shape[-1] for epoch in (0, 1, 2, 3, None)]
    assert sizes == [24, 24, 32, 32, 32]


def test_a_setting_that_is_missing_or_unknown_is_named(shapes_module: Make) -> None:
    settings: dict[str, Any] = {**shapes_module().settings, "mixed": 0.2}
    del settings["mixup"]
    with pytest.raises(UserError, match=r"data: Shapes has no mixed, lacks mixup. Add `defaults: \[base/images\]`"):
        Shapes(num_train=9, num_test=9, data_seed=0, **settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.flip=sometimes", "data.flip=sometimes: expected"),
        ("data.mixup=-1", "data.mixup=-1"),
        ("data.hard_fraction=0", "data.hard_fraction=0: expected greater than 0"),
        ("data.hard_fraction=1.5", "data.hard_fraction=1.5: expected less than or equal to 1"),
        (
            "data.hard_fraction=0.5 data.cutmix=1.0",
            r"hard_fraction=0.5: images are drawn by their own loss, which data.cutmix=1.0 mixes with that of other "
            r"images; set data.hard_fraction=1 or data.cutmix=0",
        ),
        ("data.color_jitter={brightness:0.4}", "data.color_jitter.contrast: a value is missing"),
        ("data.rand_augment={num_ops:2,magnitude:31}", "data.rand_augment.magnitude=31"),
        ("data.color_jitter={brightness:0.4,contrast:0,saturation:0,hue:0.6}", "data.color_jitter.hue=0.6"),
        (
            "data.low_light={stops:[8,2],photons:4000,read_noise:1}",
            r"data.low_light.stops=\[8, 2\]: expected a number of",
        ),
        ("data.low_light={stops:-1,photons:4000,read_noise:1}", "or the least and the largest, as in .2, 8.; found -1"),
        ("data.low_light={stops:[2],photons:4000,read_noise:1}", r"data.low_light.stops=\[2\]: expected a number of"),
        ("data.low_light={stops:dark,photons:4000,read_noise:1}", "data.low_light.stops=dark: expected a number of"),
        ("data.low_light={stops:2,photons:0,read_noise:1}", "data.low_light.photons=0: expected greater than 0"),
        (
            "data.low_light={stops:2,photons:70000,read_noise:1}",
            "data.low_light.photons=70000: expected less than 65536",
        ),
        (
            "data.low_light={stops:2,photons:4000,read_noise:-1}",
            "data.low_light.read_noise=-1: expected greater than or",
        ),
        ("data.low_light={stops:2,photons:4000}", "data.low_light.read_noise: a value is missing"),
        (
            "data.low_light={stop:2,photons:4000,read_noise:1}",
            "data.low_light.stop: unknown key; did you mean data.low_light.stops",
        ),
        (
            "data.progressive_sizes=[24,32] trainer.max_epochs=-1 trainer.max_steps=9",
            r"data\.progressive_sizes: .*set trainer\.max_epochs=N",
        ),
    ],
)
def test_values_out_of_range_are_refused(overrides: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose_config(*TINY, *overrides.split())


def test_a_task_without_mixed_targets_is_refused(shapes_module: Make) -> None:
    module = made(shapes_module, cutmix=1.0)
    with pytest.raises(UserError, match="would learn from mixed images as if each had one label"):
        check_task(Task(supports_mixed_targets=False), module.mixing, 1.0)
    check_task(Task(supports_mixed_targets=False), made(shapes_module).mixing, 1.0)


def test_a_task_that_records_no_losses_is_refused(shapes_module: Make) -> None:
    module, task = made(shapes_module, hard_fraction=0.5), Task()
    attach_trainer(module, task)
    with pytest.raises(UserError, match=r"hard_fraction=0.5: Task does not tell the loss of each image"):
        module.train_dataloader()
    task.records_losses = True
    batch = next(iter(module.train_dataloader()))
    assert batch.loss_table is module.loss_table is not None
    module.trainer = SimpleNamespace(**vars(module.trainer), training=True)  # type: ignore[assignment]
    module.on_after_batch_transfer(batch, 0)
    module.trainer.current_epoch = 1  # type: ignore[misc, union-attr]
    with pytest.raises(UserError, match=r"hard_fraction=0.5: the task has recorded no loss in a whole epoch: let"):
        module.on_after_batch_transfer(batch, 0)
    batch.loss_table.record(batch.indices[:0], torch.zeros(0))
    module.on_after_batch_transfer(batch, 0)
    assert module.train_dataloader().sampler.loss_table is batch.loss_table, "it belongs to the training in progress"
    module.trainer.current_epoch = 0  # type: ignore[misc, union-attr]
    assert module.train_dataloader().sampler.loss_table is not batch.loss_table


def test_images_are_not_drawn_where_batches_are_overfitted(shapes_module: Make) -> None:
    module = made(shapes_module, hard_fraction=0.5)
    module.trainer = Trainer(accelerator="cpu", overfit_batches=1, logger=False, enable_progress_bar=False)
    loader = module.train_dataloader()
    assert (module.loss_table, loader.sampler.num_visited) == (None, len(module.train_indices))


def test_checking_the_network_does_not_change_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_network(Task(network), [(16, 16), (32, 24)], 3, "data.x=1", "data.x=0")
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"data.x=1: Sequential can't take images of 16x16 .*, or data.x=0"):
        check_network(Task(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))), [(16, 16)], 3, "data.x=1", "data.x=0")


@pytest.mark.parametrize("key", ["color_jitter", "rand_augment"])
def test_colors_of_two_channels_are_refused(shapes_module: Make, key: str) -> None:
    settings: Any = shapes_module().settings
    check_image_shape(settings, (2, 8, 8))
    check_image_shape({**settings, key: {}}, (1, 8, 8))
    with pytest.raises(UserError, match=f"data.{key} is for images of 1 .* or 3 .* not of 2: set it to null"):
        check_image_shape({**settings, key: {}}, (2, 8, 8))
