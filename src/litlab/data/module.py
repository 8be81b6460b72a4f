"""The one interface of all data sets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from jaxtyping import Float
from lightning import LightningDataModule
from torch import Tensor

from litlab.data.arrays import ImageArrays, ImageContent
from litlab.data.augment import Augmentation, Mixing
from litlab.data.batch import Batch
from litlab.data.checks import check_fit, check_network, check_settings, check_task
from litlab.data.facts import DatasetFacts
from litlab.data.loader import BatchLoader, EpochOrder, LoaderPart, MemoryLoader
from litlab.data.preprocess import Preprocess
from litlab.data.settings import ImageSettings
from litlab.data.shrink import shrunk, size_of_epoch
from litlab.data.split import stratified_split
from litlab.data.stream import StoredImages, StreamLoader
from litlab.errors import UserError


class ImageDataModule(LightningDataModule, ABC):
    """Images for classification; a subclass only says how to come by them.

    Its arguments are those of `ImageSettings`. `facts` is there after `setup`. The test split is touched by the test
    loader only.
    """

    facts: DatasetFacts

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
        """Images, split and facts, for every stage at once; the second call does nothing.

        Raises UserError for settings that don't fit the data.
        """
        if self._content is not None:
            return
        content = self.load_images()
        self.train_members, self.val_members = stratified_split(
            content.train_labels,
            class_names=content.class_names,
            val_size=self.settings["val_size"],
            seed=self.settings["val_seed"],
        )
        self.facts = self._facts(content)
        check_fit(self.settings, self.facts.image_shape)
        self.preprocess = Preprocess(image_size=self.facts.image_shape[1:], mean=self.facts.mean, std=self.facts.std)
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
            check_network(task, self.settings["progressive_sizes"], self.facts.image_shape[0])
        mixing = self.mixing if self.mixing.active else None
        return self._loader("train", self.train_members, shuffle=not overfits, mixing=mixing)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """An empty list, which Lightning takes for "no validation", where `val_size` gives no images."""
        return self._loader("train", self.val_members) if len(self.val_members) else []

    def test_dataloader(self) -> BatchLoader:
        """The whole official test split, in stored order."""
        return self._loader("test", torch.arange(self.facts.num_test))

    def example_images(self, num_images: int) -> Float[Tensor, "b c h w"]:
        """At most so many training images, evenly spaced, as a network gets them but not augmented; on the CPU."""
        every = max(1, len(self.train_members) // num_images)
        loader = self._loader("train", self.train_members[::every][:num_images])
        return torch.cat([self.finish(batch, epoch=None).images for batch in loader])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches of images that are in memory are where they are needed already."""
        if batch.images.device == device:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (while training only) and normalises, on the device that the batch is on."""
        trainer = self.trainer
        return self.finish(batch, epoch=trainer.current_epoch if trainer is not None and trainer.training else None)

    def finish(self, batch: Batch, *, epoch: int | None) -> Batch:
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
        images, share = self.mixing(images[:num_images], images[num_images:], batch.indices, epoch)
        partners = batch.partners._replace(share=share)
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

    def _facts(self, content: ImageContent) -> DatasetFacts:
        return DatasetFacts(
            name=content.name,
            class_names=content.class_names,
            image_shape=content.image_shape,
            mean=_per_channel("mean", self.settings["mean"], content.mean),
            std=_per_channel("std", self.settings["std"], content.std),
            statistics_source=self._statistics_source(len(content.train_labels)),
            fingerprint=content.fingerprint,
            num_train=len(self.train_members),
            num_val=len(self.val_members),
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
