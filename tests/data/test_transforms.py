"""Transforms of single images: random numbers by (seed, epoch, index), in every data module and loader."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from support.exact_resume import differences, new_run, outcome, train_until
from support.images import write_folder
from support.loaders import training_loader
from support.runs import NO_PICTURES, compose_config
from torch import Tensor, nn
from torchvision.transforms import v2

from litlab.config.resume_overrides import change_config
from litlab.data.image_folder import ImageFolder
from litlab.data.loader import BatchLoader
from litlab.data.module import ImageDataModule
from litlab.data.transforms import ImageTransforms
from litlab.errors import UserError
from litlab.training.build import build_data

Make = Callable[..., ImageDataModule]
HERE = "data.test_transforms"


class Grain:
    """Transform of a user's own that draws from all three generators."""

    def __init__(self, *, strength: int) -> None:
        self.strength = strength

    def __call__(self, image: Tensor) -> Tensor:
        grain = (
            torch.randint(0, self.strength, (1,)) + np.random.randint(self.strength) + random.randrange(self.strength)
        )
        return (image.int() + grain).clamp(0, 255).to(torch.uint8)


def invert_in_place(image: Tensor, *, level: int) -> Tensor:
    return image.neg_().add_(level)


class OwnGenerator:
    """Transform whose results a seed does not repeat."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self, image: Tensor) -> Tensor:
        return image + int(self.generator.integers(0, 100))


def keep_a_column(image: Tensor) -> Tensor:
    """Return an image whose width depends on its pixels."""
    return image[:, :, : 8 + int(image[0, 0, 0]) % 8]


def fails(image: Tensor) -> Tensor:
    raise ZeroDivisionError("no reason")


TRAIN: list[Any] = [
    v2.RandomResizedCrop(20),
    v2.RandomRotation(10),
    v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    Grain(strength=9),
]
EVAL: list[Any] = [v2.CenterCrop(20)]
BOTH = {"train": TRAIN, "eval": EVAL}


def make_transforms(*transforms: Any, seed: int = 0) -> ImageTransforms:
    return ImageTransforms(transforms, seed=seed, setting="data.transforms.train")


def test_an_image_is_a_function_of_seed_epoch_and_index(images: Tensor) -> None:
    images = torch.randint(0, 256, (6, 3, 24, 24), dtype=torch.uint8)
    before, transforms = images.clone(), make_transforms(partial(invert_in_place, level=255), *TRAIN)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    together = transforms(list(images), range(6), 3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(images, before), "the stored images stay"
    for index in (5, 0, 3):
        (alone,) = transforms([images[index]], [index], 3)
        assert torch.equal(alone, together[index])
    same = images[:1].expand(3, -1, -1, -1)
    first, *others = transforms(list(same), range(3), 3)
    others += transforms([images[0]], [0], 4) + make_transforms(*TRAIN, seed=1)([images[0]], [0], 3)
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    "generator", [torch.rand, lambda shape: torch.tensor(np.random.rand()), lambda _: torch.tensor(random.random())]
)
def test_each_global_generator_is_seeded(generator: Callable[..., Tensor]) -> None:
    def transform(image: Tensor) -> Tensor:
        return (generator(1) * 255).to(torch.uint8).expand(1, 1, 1)

    image = torch.zeros(1, 1, 1, dtype=torch.uint8)
    drawn = [int(value) for value in make_transforms(transform)([image] * 200, range(200), 0)]
    backwards = [int(value) for value in make_transforms(transform)([image] * 200, range(199, -1, -1), 0)]
    assert drawn == backwards[::-1]
    assert len(set(drawn)) > 100


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (3, r"data\.transforms\.train\.0: a int can't be applied to images"),
        (OwnGenerator(), "one image gave two results for the same seed.*not from a generator of its own"),
        (keep_a_column, r"image 1 has the shape 3x24x9 after them, another one 3x24x8.*CenterCrop with size=\[24,8\]"),
        (v2.ToDtype(torch.float32, scale=True), r"found torch\.float32 of shape \(3, 24, 24\); leave out Normalize"),
        (v2.ToPILImage(), "expected a uint8 tensor c h w after the last transform, found Image"),
        (v2.FiveCrop(5), "found tuple"),
        (v2.Normalize([0.5], [0.5]), r"Normalize failed .*; leave it out, since images are uint8 tensors already and"),
        (fails, r"0: fails failed for image 0: ZeroDivisionError: no reason \(.*test_transforms\.py, line \d+\)"),
        (v2.RandomCrop(30), r"0: RandomCrop failed for image 0: ValueError: Required crop size \(30, 30\) is larger"),
    ],
)
def test_what_is_no_transform_of_images_is_refused(transform: Any, message: str) -> None:
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 24, 24)
    with pytest.raises(UserError, match=message) as refused:
        make_transforms(transform).output_shape(list(images), range(4))
    assert "\n" not in str(refused.value)


def test_transforms_run_in_one_thread() -> None:
    def transform(image: Tensor) -> Tensor:
        return image + torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (image,) = make_transforms(transform)([torch.zeros(1, 1, 1, dtype=torch.uint8)], [0], 0)
        assert (int(image), torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(before)


def test_transforms_of_other_types_may_be_in_between() -> None:
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)
    through = make_transforms(v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToDtype(torch.uint8, scale=True))
    assert torch.equal(through([image], [0], 0)[0], image)
    assert type(through([image], [0], 0)[0]) is Tensor
    assert torch.equal(make_transforms(v2.ToPILImage(), v2.PILToTensor())([image], [0], 0)[0], image)


def batches(module: ImageDataModule, epoch: int, rank: int = 0, world_size: int = 1) -> list[Any]:
    """Return the batches of one rank as training gets them, with the epoch's augmentation."""
    loader = training_loader(module, epoch, rank, world_size)
    found = [module.transform_batch(batch, epoch=epoch) for batch in loader]
    _shutdown(loader)
    return found


def _shutdown(loader: BatchLoader) -> None:
    if getattr(loader, "_iterator", None) is not None:
        _shutdown_workers_and_reset_iterator(loader)


@pytest.mark.integrations
def test_batches_are_the_same_for_any_workers_ranks_and_positions(make_module: Make) -> None:
    settings = {"transforms": BOTH, "mixup": 0.4, "cutmix": 1.0, "crop_padding": 2, "cutout": 4}
    module = make_module(**settings)
    assert module.info.image_shape == (3, 20, 20)
    expected = batches(module, 1)
    assert differences(expected, batches(make_module(**settings, num_workers=2), 1)) == []
    assert not torch.equal(expected[0].images, batches(make_module(**settings, seed=1), 1)[0].images)
    for world_size in (2, 4):
        ranks = [batches(module, 1, rank, world_size) for rank in range(world_size)]
        for whole, *parts in zip(expected, *ranks, strict=True):
            joined = torch.cat([part.images[: part.num_valid] for part in parts])
            assert torch.equal(joined, whole.images)
    loader = training_loader(module, 1)
    loader.seek(2)
    assert differences([module.transform_batch(batch, epoch=1) for batch in loader], expected[2:]) == []


def test_partners_are_transformed_as_they_are_themselves(make_module: Make) -> None:
    module = make_module(transforms=BOTH, mixup=0.4)
    loader = training_loader(module, 1)
    own, partners = {}, []
    for batch in loader:
        own |= dict(zip(batch.indices.tolist(), batch.images, strict=True))
        partners += zip(batch.partners.indices.tolist(), batch.partners.images, strict=True)
    assert partners
    for index, image in partners:
        assert torch.equal(image, own[index])
    (expected,) = module.transforms["train"]([module.arrays.train_images[index]], [index], 1)  # of this epoch
    assert torch.equal(expected, own[index])


def test_evaluation_has_its_own_transforms_and_the_same_numbers_in_each_epoch(make_module: Make) -> None:
    module = make_module(transforms={"train": TRAIN, "eval": [*EVAL, Grain(strength=9)]})
    for make_loader in (module.val_dataloader, module.test_dataloader):
        loader, found = make_loader(), []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]  # as Lightning does
            found.append(list(loader))
        assert differences(*found) == []
        for batch in found[0]:
            assert batch.images.shape[1:] == (3, 20, 20)
    stored = module.arrays.test_images[:, :, 2:22, 2:22] if module.info.transformed_from == (3, 24, 24) else None
    if stored is not None:
        difference = batch.images.int() - stored[batch.indices].int()
        assert difference.min() >= 0
        assert difference.max() > 0


def test_mean_and_deviation_are_those_after_the_transforms_of_evaluation(make_module: Make) -> None:
    raw = make_module().info
    module = make_module(transforms={"train": [], "eval": [v2.CenterCrop(10)]})
    rows = module.arrays.train_images[module.train_indices]
    pixels = v2.functional.center_crop(rows, [10, 10]).double() / 255
    info = module.info
    torch.testing.assert_close(torch.tensor(info.mean).double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(info.std).double(), pixels.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)
    assert info.statistics_source == f"computed from {info.num_train:,} training images after data.transforms.eval"
    assert (info.transformed_from, raw.transformed_from) == (raw.image_shape, None)
    assert info.fingerprint == raw.fingerprint
    assert make_module(transforms={"train": [v2.CenterCrop(10)], "eval": []}).info.mean == raw.mean
    configured = make_module(transforms={"train": [], "eval": [v2.CenterCrop(10)]}, mean=[0.5] * 3, std=[0.2] * 3).info
    assert (configured.mean, configured.statistics_source) == ((0.5,) * 3, "data.mean and data.std as configured")


def test_gray_images(make_module: Make) -> None:
    gray = v2.Grayscale()
    module = make_module(transforms={"train": [gray, v2.RandomAffine(5)], "eval": [gray]})
    assert module.info.image_shape[0] == len(module.info.mean) == len(module.info.std) == 1
    batch = batches(module, 0)[0]
    assert batch.images.shape[1] == 1
    with pytest.raises(UserError, match=r"data\.transforms: images of the training have 3 channels .*evaluation 1;"):
        make_module(transforms={"train": [], "eval": [gray]})


def test_augmentation_has_to_fit_the_transformed_images(make_module: Make) -> None:
    transforms = {"train": [v2.RandomCrop(4)], "eval": [v2.Resize((20, 20))]}
    with pytest.raises(UserError, match=r"data\.crop_padding=4 must be smaller than the images \(4 pixels\)"):
        make_module(transforms=transforms)
    assert make_module(transforms=transforms, crop_padding=3).info.image_shape == (3, 20, 20)


@pytest.fixture
def folder(folder_module: Callable[..., ImageFolder], tmp_path: Path) -> Make:
    write_folder(tmp_path / "images")

    def made(**changes: Any) -> ImageFolder:
        module = folder_module(**{"val_size": 6, "batch_size": 8, "transforms": BOTH, **changes})
        module.prepare_data()
        module.setup()
        return module

    return made


@pytest.mark.integrations
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_stream_equals_memory(folder: Make, resize: str, num_workers: int) -> None:
    settings = {"image_size": [24, 32], "resize": resize}
    memory, stream = folder(**settings), folder(**settings, storage="stream", num_workers=num_workers)
    assert (stream.info, memory.info.transformed_from) == (memory.info, (3, 24, 32))
    assert memory.info.resize == resize
    assert differences(batches(memory, 1), batches(stream, 1)) == []
    for name in ("val_dataloader", "test_dataloader"):
        assert differences(list(getattr(memory, name)()), list(getattr(stream, name)())) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_failure_is_reported_from_a_worker(folder: Make, num_workers: int) -> None:
    is_broken = []

    def fails_later(image: Tensor) -> Tensor:
        if is_broken:
            raise ValueError("bad luck")
        return image

    module = folder(transforms={"train": [fails_later], "eval": []}, num_workers=num_workers, image_size=16)
    loader = training_loader(module, 0)
    is_broken.append(True)
    with pytest.raises(UserError, match=r"train\.0: fails_later failed for image \d+: ValueError: bad luck") as refused:
        list(loader)
    assert "Traceback" not in str(refused.value)


class OneSize(nn.Module):
    """Network of images of the size in evaluation alone."""

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.head = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


CROP = "torchvision.transforms.v2"
RUN = (
    "data=shapes", "data.num_train=60", "data.num_test=24", "data.val_size=16", "data.batch_size=8",
    "model._target_=support.runs.Dropping", "~model.widths", "~model.hidden", "data.crop_padding=0", "data.mixup=0.3",
    f"data.transforms.train=[{{_target_:{CROP}.RandomResizedCrop,size:[24,20]}},{{_target_:{HERE}.Grain,strength:9}}]",
    f"data.transforms.eval=[{{_target_:{CROP}.CenterCrop,size:[24,20]}}]",
    *NO_PICTURES, "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3",
    "threads=1",
)  # fmt: skip


@pytest.mark.integrations
def test_a_stopped_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, config = new_run(tmp_path / "whole", *RUN, "data.num_workers=0")
    assert train_until(whole, config, None)
    expected = outcome(whole)
    for number, workers in ((3, 2), (9, 0)):  # in the first epoch and in the second
        run, stopped = new_run(tmp_path / f"stopped-{number}", *RUN, f"data.num_workers={workers}")
        assert train_until(run, stopped, number) is None
        resumed = change_config(stopped, [f"data.num_workers={2 - workers}"], lambda: 1).config
        train_until(run, resumed, None)
        found = outcome(run)
        assert differences([expected["rows"], expected["result"]], [found["rows"], found["result"]]) == []


def test_arguments_that_a_transform_refuses_are_reported_with_their_key() -> None:
    config = compose_config(
        "data=shapes", f"data.transforms.train=[{{_target_:{CROP}.RandomResizedCrop,size:[1,2,3]}}]"
    )
    with pytest.raises(
        UserError, match=r"data\.transforms\.train\.0: .*RandomResizedCrop: Please provide only two dim"
    ):
        build_data(config)


def test_a_network_of_the_size_in_evaluation_is_refused(tmp_path: Path) -> None:
    eval_only = [override for override in RUN if not override.startswith(("data.transforms.train", "model._target_"))]
    run, config = new_run(tmp_path / "run", *eval_only, f"model._target_={HERE}.OneSize")
    with pytest.raises(UserError, match=r"data\.transforms: OneSize can't take images of 32x32 .*images of one size"):
        train_until(run, config, None)
