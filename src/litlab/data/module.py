"""The one interface of all data sets."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

import torch
from jaxtyping import Float, Int64
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn

from litlab.data.arrays import ImageArrays, ImageContent
from litlab.data.augment import Augmentation, Mixing
from litlab.data.augment.resize import check_sizes, shrunk, size_of_epoch
from litlab.data.dataset_info import DatasetInfo
from litlab.data.image_settings import ImageSettings
from litlab.data.loader import Batch, BatchLoader, EpochOrder, LoaderPart, MemoryLoader
from litlab.data.preprocess import Preprocess
from litlab.data.random_numbers import random_order
from litlab.data.stream import StoredImages, StreamLoader
from litlab.errors import UserError


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """Raises UserError where there are not exactly the settings that all data modules have."""
    expected = ImageSettings.__annotations__.keys()
    wrong = [f"lacks {key}" for key in expected - settings.keys()]
    wrong += [f"has no {key}" for key in settings.keys() - expected]
    if wrong:
        raise UserError(
            f"data: {name} {', '.join(sorted(wrong))}; `defaults: [base/images]` gives its YAML the settings that all "
            "data sets have, and its constructor hands them on as **settings"
        )


def check_fit(settings: ImageSettings, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError for an augmentation that images of this shape (c, h, w) can't have."""
    num_channels, height, width = image_shape
    smallest = min(height, width)
    if settings["crop_padding"] >= smallest:
        raise UserError(
            f"data.crop_padding={settings['crop_padding']} must be smaller than the images "
            f"({smallest} pixels): a reflection can't be wider than the image"
        )
    if settings["cutout"] > smallest:
        raise UserError(
            f"data.cutout={settings['cutout']}: the side of the square that is blanked can't be larger than the images "
            f"({smallest} pixels); half of that is usual"
        )
    colored = [key for key in ("color_jitter", "rand_augment") if settings[key] is not None]
    if colored and num_channels not in (1, 3):
        raise UserError(
            f"data.{colored[0]} is for images of 1 (grey) or 3 (red, green, blue) channels, not of {num_channels}: set "
            "it to null"
        )
    if settings["progressive_sizes"]:
        check_sizes(settings["progressive_sizes"], (height, width))


def check_task(task: LightningModule, mixing: Mixing) -> None:
    """Raises UserError where images would be mixed, but not their labels."""
    if mixing.active and not getattr(task, "supports_mixed_targets", False):
        raise UserError(
            f"data.mixup, data.cutmix: {type(task).__name__} would learn from mixed images as if each had one label. "
            "Its loss must weigh the labels of `batch.partners` by their `lam`; where it does, let it say so by an "
            "attribute `supports_mixed_targets = True`. Or set both to 0"
        )


def check_network(task: LightningModule, sizes: Sequence[int] | None, num_channels: int) -> None:
    """Raises UserError where the network of a task can't take images of one of these sizes."""
    network = getattr(task, "network", None)
    if not sizes or not isinstance(network, nn.Module):
        return
    for size in sorted(set(sizes)):
        images = torch.zeros(1, num_channels, size, size, device=task.device, dtype=task.dtype)  # type: ignore[arg-type]
        training = [module for module in network.modules() if module.training]
        try:
            with torch.no_grad():
                network.eval().forward(images)  # not called, or a compiled one would be compiled for it
        except RuntimeError as error:
            raise UserError(
                f"data.progressive_sizes={list(sizes)}: {type(network).__name__} can't take images of {size}x{size} "
                f"({str(error).splitlines()[0]}). Take a network without a fixed image size, such as model=resnet18, "
                "or data.progressive_sizes=null"
            ) from error
        finally:
            for module in training:
                module.training = True


def stratified_split(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], val_size: int | float, seed: int
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_val"]]:
    """Rows for training and rows for validation, both ascending; a function of (labels, val_size, seed).

    val_size: a number of images, or a share of them below 1; 0 for none. A share fits every data set: of at least one
    image, and each class keeps one to train on. A number that leaves a class none raises UserError.

    Each class gives its part of them to within one image; where parts are not whole, the largest fractions are rounded
    up (lower class first).
    """
    class_sizes = torch.bincount(labels, minlength=len(class_names))
    if isinstance(val_size, float):
        num_val = max(1, round(val_size * len(labels))) if val_size else 0
        quotas = torch.minimum(_quotas(class_sizes, num_val), (class_sizes - 1).clamp(min=0))
    else:
        _check_number(class_sizes, class_names, val_size)
        quotas = _quotas(class_sizes, val_size)
    train, val = [], []
    for label, quota in enumerate(quotas.tolist()):
        members = random_order(torch.nonzero(labels == label).flatten(), seed)
        val.append(members[:quota])
        train.append(members[quota:])
    return torch.cat(train).sort().values, torch.cat(val).sort().values


def _quotas(class_sizes: Int64[Tensor, " classes"], num_val: int) -> Int64[Tensor, " classes"]:
    num_images = int(class_sizes.sum())
    quotas = class_sizes * num_val // num_images
    fractions = class_sizes * num_val % num_images
    largest_first = torch.sort(fractions, descending=True, stable=True).indices
    quotas[largest_first[: num_val - int(quotas.sum())]] += 1
    return quotas


def _check_number(class_sizes: Int64[Tensor, " classes"], class_names: tuple[str, ...], val_size: int) -> None:
    advice = "use a smaller number, or a share such as 0.1"
    num_images = int(class_sizes.sum())
    if val_size >= num_images:
        raise UserError(
            f"data.val_size={val_size} leaves nothing to train on: the training split has {num_images} images; {advice}"
        )
    quotas = _quotas(class_sizes, val_size)
    for name, quota, size in zip(class_names, quotas.tolist(), class_sizes.tolist(), strict=True):
        if size and quota >= size:
            raise UserError(f"data.val_size={val_size} takes all {size} training images of class {name}: {advice}")


class ImageDataModule(LightningDataModule, ABC):
    """Images for classification; a subclass only says how to come by them.

    Its arguments are those of `ImageSettings`. `info` is there after `setup`. The test split is touched by the test
    loader only.
    """

    info: DatasetInfo

    def __init__(self, **settings: Unpack[ImageSettings]) -> None:
        super().__init__()
        check_settings(type(self).__name__, settings)
        self.settings = settings
        self.batch_size = settings["batch_size"]
        self.seed = settings["seed"]
        self.augment = Augmentation(
            seed=settings["seed"],
            crop_padding=settings["crop_padding"],
            flip=settings["flip"],
            color_jitter=settings["color_jitter"],
            rand_augment=settings["rand_augment"],
            cutout=settings["cutout"],
        )
        self.mixing = Mixing(seed=settings["seed"], mixup=settings["mixup"], cutmix=settings["cutmix"])
        self._content: ImageContent | None = None
        self._resident: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def load_images(self) -> ImageArrays | StoredImages:
        """Both splits; called once, in every process, after `prepare_data` ran in one of them."""

    def setup(self, stage: str | None = None) -> None:
        """Images, split and info, for every stage at once; the second call does nothing.

        Raises UserError for settings that don't fit the data.
        """
        if self._content is not None:
            return
        content = self.load_images()
        self.train_indices, self.val_indices = stratified_split(
            content.train_labels,
            class_names=content.class_names,
            val_size=self.settings["val_size"],
            seed=self.settings["val_seed"],
        )
        self.info = self._facts(content)
        check_fit(self.settings, self.info.image_shape)
        self.preprocess = Preprocess(image_size=self.info.image_shape[1:], mean=self.info.mean, std=self.info.std)
        self._content = content

    @property
    def arrays(self) -> ImageArrays:
        """The decoded splits. Rows of a batch are found in them by `Batch.indices`."""
        assert self._content is not None, "setup() comes first"
        if not isinstance(self._content, ImageArrays):
            raise UserError("the images are streamed from their files, so there are no arrays: set data.storage=memory")
        return self._content

    def train_dataloader(self) -> BatchLoader:
        """In a new order each epoch; in the same for `Trainer(overfit_batches=...)`, or they would be other batches.

        Raises UserError where the task or its network don't go with the settings.
        """
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # Lightning gives it no type
        task = None if self.trainer is None else self.trainer.lightning_module
        if task is not None:
            check_task(task, self.mixing)
            check_network(task, self.settings["progressive_sizes"], self.info.image_shape[0])
        mixing = self.mixing if self.mixing.active else None
        return self._loader("train", self.train_indices, shuffle=not overfits, mixing=mixing)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """An empty list, which Lightning takes for "no validation", where `val_size` gives no images."""
        return self._loader("train", self.val_indices) if len(self.val_indices) else []

    def test_dataloader(self) -> BatchLoader:
        """The whole official test split, in stored order."""
        return self._loader("test", torch.arange(self.info.num_test))

    def example_images(self, num_images: int) -> Float[Tensor, "b c h w"]:
        """At most so many training images, evenly spaced, as a network gets them but not augmented; on the CPU."""
        every = max(1, len(self.train_indices) // num_images)
        loader = self._loader("train", self.train_indices[::every][:num_images])
        return torch.cat([self.transform_batch(batch, epoch=None).images for batch in loader])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches of images that are in memory are where they are needed already."""
        if batch.images.device == device:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (while training only) and normalises, on the device that the batch is on."""
        trainer = self.trainer
        return self.transform_batch(
            batch, epoch=trainer.current_epoch if trainer is not None and trainer.training else None
        )

    def transform_batch(self, batch: Batch, *, epoch: int | None) -> Batch:
        """The batch as the network takes it: augmented as in the given epoch, or not at all for None.

        Under a Trainer, images have the type and memory format of its LightningModule; float32 otherwise.
        """
        if epoch is None:
            return batch._replace(images=self._as_network_takes_it(self._normalised(batch.images)))
        if batch.partners is None:
            images = self._augmented(batch.images, batch.indices, epoch)
            return batch._replace(images=self._as_network_takes_it(images))
        both = torch.cat([batch.images, batch.partners.images]), torch.cat([batch.indices, batch.partners.indices])
        images, num_images = self._augmented(*both, epoch), len(batch.images)
        images, lam = self.mixing(images[:num_images], images[num_images:], batch.indices, epoch)
        partners = batch.partners._replace(lam=lam)
        return batch._replace(images=self._as_network_takes_it(images), partners=partners)

    def _augmented(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        pixels = self.augment.on_pixels(images, indices, epoch)
        return self.augment.on_normalised(self._normalised(pixels, self._size(epoch)), indices, epoch)

    def _normalised(self, pixels: Tensor, size: int | None = None) -> Tensor:
        images: Tensor = self.preprocess.to(pixels.device)(pixels)
        return images if size is None else shrunk(images, size)

    def _size(self, epoch: int) -> int | None:
        """To shrink training images to. Without a Trainer there is no last epoch to go by, so they stay as they are."""
        sizes, trainer = self.settings["progressive_sizes"], self.trainer
        if not sizes or trainer is None:
            return None
        assert trainer.max_epochs is not None
        return size_of_epoch(sizes, epoch, trainer.max_epochs)

    def _as_network_takes_it(self, images: Tensor) -> Tensor:
        task = None if self.trainer is None else self.trainer.lightning_module
        if task is None:
            return images
        dtype = task.dtype if isinstance(task.dtype, torch.dtype) else images.dtype
        return images.to(dtype, memory_format=getattr(task, "memory_format", torch.preserve_format))

    def _loader(
        self, split: Literal["train", "test"], members: Tensor, *, shuffle: bool = False, mixing: Mixing | None = None
    ) -> BatchLoader:
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        streams = isinstance(self._content, StoredImages)
        sampler = EpochOrder(members=members.to("cpu" if streams else device), seed=self.seed, shuffle=shuffle)
        part = LoaderPart(
            sampler=sampler,
            batch_size=self.batch_size,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            mixing=mixing,
        )
        if isinstance(self._content, StoredImages):
            return StreamLoader(self._content, split, pin_memory=device.type == "cuda", lasting=shuffle, **part)
        images, labels = self._on_device(split, device)
        return MemoryLoader(images=images, labels=labels, **part)

    def _on_device(self, split: Literal["train", "test"], device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and labels of a split where the network is: moved once, for all loaders."""
        if (split, device) not in self._resident:
            arrays = self.arrays
            pair = arrays.train_images, arrays.train_labels
            if split == "test":
                pair = arrays.test_images, arrays.test_labels
            self._resident[split, device] = pair[0].to(device), pair[1].to(device)
        return self._resident[split, device]

    def _facts(self, content: ImageContent) -> DatasetInfo:
        return DatasetInfo(
            name=content.name,
            class_names=content.class_names,
            image_shape=content.image_shape,
            mean=_per_channel("mean", self.settings["mean"], content.mean),
            std=_per_channel("std", self.settings["std"], content.std),
            statistics_source=self._statistics_source(len(content.train_labels)),
            fingerprint=content.fingerprint,
            num_train=len(self.train_indices),
            num_val=len(self.val_indices),
            num_test=len(content.test_labels),
        )

    def _statistics_source(self, num_images: int) -> str:
        computed = f"computed from the {num_images:,} training images"
        values = {"mean": self.settings["mean"], "std": self.settings["std"]}
        given = [f"data.{key}" for key, value in values.items() if value is not None]
        if not given:
            return computed
        return f"{' and '.join(given)} as configured" + ("" if len(given) == 2 else f", the other {computed}")


def _per_channel(key: str, given: Sequence[float] | None, computed: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return computed
    if len(given) != len(computed):
        raise UserError(
            f"data.{key} has {len(given)} values, but the images have {len(computed)} channels: "
            "give one for each, or null for the data set's own"
        )
    return tuple(float(value) for value in given)
