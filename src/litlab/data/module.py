"""The one interface of all data sets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from lightning import LightningDataModule
from torch import Tensor

from litlab.data.arrays import ImageArrays
from litlab.data.augment import CropFlip
from litlab.data.batch import Batch
from litlab.data.facts import DatasetFacts
from litlab.data.loader import BatchLoader, EpochOrder
from litlab.data.preprocess import Preprocess
from litlab.data.split import stratified_split
from litlab.errors import UserError


class ImageDataModule(LightningDataModule, ABC):
    """Images for classification; a subclass only says how to come by the arrays.

    batch_size: images per step over all devices, for training and evaluation.
    val_size: images drawn from the training split, stratified, by `val_seed`: a number, or a share below 1; 0 for none.
    seed: of the order of the epochs and of the augmentation.
    crop_padding, flip: augmentation of training images, see `CropFlip`.
    mean, std: per channel, of pixels in 0..1; None for those of the data set's training split.

    `facts` is there after `setup`. The test split is touched by the test loader only.
    """

    facts: DatasetFacts

    def __init__(
        self,
        *,
        batch_size: int,
        val_size: int | float,
        val_seed: int,
        seed: int,
        crop_padding: int,
        flip: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_size = val_size
        self.val_seed = val_seed
        self.seed = seed
        self.augment = CropFlip(seed=seed, crop_padding=crop_padding, flip=flip)
        self.mean = mean
        self.std = std
        self._arrays: ImageArrays | None = None

    @abstractmethod
    def load_arrays(self) -> ImageArrays:
        """Both splits; called once, in every process, after `prepare_data` ran in one of them."""

    def setup(self, stage: str | None = None) -> None:
        """Arrays, split and facts, for every stage at once; the second call does nothing.

        Raises UserError where `val_size`, `crop_padding`, `mean` or `std` don't fit the data.
        """
        if self._arrays is not None:
            return
        arrays = self.load_arrays()
        self.train_members, self.val_members = stratified_split(
            arrays.train_labels, class_names=arrays.class_names, val_size=self.val_size, seed=self.val_seed
        )
        self.facts = self._facts(arrays)
        self._check_crop(self.facts)
        self.preprocess = Preprocess(image_size=self.facts.image_shape[1:], mean=self.facts.mean, std=self.facts.std)
        self._arrays = arrays

    @property
    def arrays(self) -> ImageArrays:
        """The decoded splits. Rows of a batch are found in them by `Batch.indices`."""
        assert self._arrays is not None, "setup() comes first"
        return self._arrays

    def train_dataloader(self) -> BatchLoader:
        """In a new order each epoch; in the same for `Trainer(overfit_batches=...)`, or they would be other batches."""
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # Lightning gives it no type
        return self._train_rows(self.train_members, shuffle=not overfits)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """An empty list, which Lightning takes for "no validation", where `val_size` gives no images."""
        return self._train_rows(self.val_members, shuffle=False) if len(self.val_members) else []

    def test_dataloader(self) -> BatchLoader:
        """The whole official test split, in stored order."""
        arrays = self.arrays
        members = torch.arange(len(arrays.test_labels))
        return self._loader(arrays.test_images, arrays.test_labels, members, shuffle=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments (while training only) and normalises, on the device that the batch is on."""
        trainer = self.trainer
        return self.finish(batch, epoch=trainer.current_epoch if trainer is not None and trainer.training else None)

    def finish(self, batch: Batch, *, epoch: int | None) -> Batch:
        """The batch as a network takes it: augmented as in the given epoch, or not at all for None; float."""
        images = batch.images
        if epoch is not None:
            images = self.augment(images, batch.indices, epoch)
        return batch._replace(images=self.preprocess.to(images.device)(images))

    def _train_rows(self, members: Tensor, *, shuffle: bool) -> BatchLoader:
        return self._loader(self.arrays.train_images, self.arrays.train_labels, members, shuffle=shuffle)

    def _loader(self, images: Tensor, labels: Tensor, members: Tensor, *, shuffle: bool) -> BatchLoader:
        trainer = self.trainer
        return BatchLoader(
            images=images,
            labels=labels,
            sampler=EpochOrder(members=members, seed=self.seed, shuffle=shuffle),
            batch_size=self.batch_size,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def _facts(self, arrays: ImageArrays) -> DatasetFacts:
        num_channels, height, width = arrays.train_images.shape[1:]
        return DatasetFacts(
            name=arrays.name,
            class_names=arrays.class_names,
            image_shape=(num_channels, height, width),
            mean=_per_channel("mean", self.mean, arrays.mean),
            std=_per_channel("std", self.std, arrays.std),
            statistics_source=self._statistics_source(len(arrays.train_labels)),
            fingerprint=arrays.fingerprint,
            num_train=len(self.train_members),
            num_val=len(self.val_members),
            num_test=len(arrays.test_labels),
        )

    def _statistics_source(self, num_images: int) -> str:
        computed = f"computed from the {num_images:,} training images"
        given = [f"data.{key}" for key in ("mean", "std") if getattr(self, key) is not None]
        if not given:
            return computed
        return f"{' and '.join(given)} as configured" + ("" if len(given) == 2 else f", the other {computed}")

    def _check_crop(self, facts: DatasetFacts) -> None:
        smallest = min(facts.image_shape[1:])
        if self.augment.crop_padding >= smallest:
            raise UserError(
                f"data.crop_padding={self.augment.crop_padding} must be smaller than the images "
                f"({smallest} pixels): a reflection can't be wider than the image"
            )


def _per_channel(key: str, given: Sequence[float] | None, computed: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return computed
    if len(given) != len(computed):
        raise UserError(
            f"data.{key} has {len(given)} values, but the images have {len(computed)} channels: "
            "give one for each, or null for the data set's own"
        )
    return tuple(float(value) for value in given)
