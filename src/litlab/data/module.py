"""Base class of the image data modules."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int64
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn

from litlab.data.arrays import ImageArrays, mean_and_std, pixel_sums
from litlab.data.augment import Augmentation, Mixing
from litlab.data.augment.geometry import epoch_size, shrink
from litlab.data.dataset_info import DatasetInfo
from litlab.data.image_decoder import MAX_BIT_DEPTH
from litlab.data.image_stream import StreamedImages
from litlab.data.loader import Batch, BatchLoader, EpochSampler, LoaderArgs, MemoryLoader
from litlab.data.loss_table import LossTable
from litlab.data.low_light import LowLight, darken_splits
from litlab.data.preprocess import Preprocess
from litlab.data.resize import Resize
from litlab.data.split import stratified_fold, stratified_split
from litlab.data.transforms import Transform, make_transforms
from litlab.data.worker_loader import WorkerLoader
from litlab.errors import UserError
from litlab.runs.terminal import printable

_MIN_SIZE = 8  # pixels, of progressive resizing
_MAX_LISTED = 5  # files in a note
_NUM_CHECKED = 4  # images that show what the transforms give
_MAX_MEASURED = 2000  # training images, for mean and deviation after transforms; all would take too long


class ImageSettings(TypedDict):
    """Arguments of every `ImageDataModule`; a subclass takes them as `**settings: Unpack[ImageSettings]`.

    conf/data/base/images.yaml has their values.

    Attributes:
        batch_size: Number of images in a step over all devices, for training and evaluation.
        val_size: Number of images drawn from the training split, stratified, or their fraction below 1; 0 for none. Not
            used for data with a validation split of their own.
        val_seed: Seed of the validation split, or of the folds.
        folds: Number of folds that the training images are split into, stratified; None for a split by `val_size`.
        fold: Number of the fold to validate on, from 0; None without folds.
        seed: Seed of the order of the epochs and of the augmentation.
        hard_fraction: Fraction of the training images that an epoch visits, drawn by their last loss, see `LossTable`;
            1 for all.
        low_light: Settings by which the images of all splits are darkened, see `LowLight`; None for images as they are.
        transforms: Transforms of single images, in training ("train") and otherwise ("eval"), see `ImageTransforms`;
            those of training come before the augmentation.
        num_workers: Number of processes that transform images, or read them from files; 0 to do it in this one.
        crop_padding, flip, cutout, color_jitter, rand_augment: See `Augmentation`.
        mixup, cutmix: See `Mixing`.
        progressive_sizes: Heights and widths in pixels that training images are shrunk to, for an equal number of
            epochs each; the last is the images' own. None for that one alone.
        mean, std: Per channel, of pixels in 0..1; None for those of the training images alone, after the transforms
            of evaluation, without validation.
    """

    batch_size: int
    val_size: int | float
    val_seed: int
    folds: int | None
    fold: int | None
    seed: int
    hard_fraction: int | float
    low_light: Mapping[str, Any] | None
    transforms: Mapping[Literal["train", "eval"], Sequence[Transform]]
    num_workers: int
    crop_padding: int
    flip: bool | Literal["alternating"]
    cutout: int
    mixup: float
    cutmix: float
    color_jitter: Mapping[str, float] | None
    rand_augment: Mapping[str, int] | None
    progressive_sizes: Sequence[int] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


class SplitRows(NamedTuple):
    """Rows of the official training split, ascending, that are used for each split.

    Attributes:
        train: Rows to train on.
        val: Rows to validate on.
        test: Rows to test on, if there is no official test split.
        notes: Sentences on the split for the user.
    """

    train: Int64[Tensor, " n_train"]
    val: Int64[Tensor, " n_val"]
    test: Int64[Tensor, " n_test"]
    notes: tuple[str, ...] = ()


class ImageDataModule(LightningDataModule, ABC):
    """Images for classification; a subclass only provides the official splits.

    The test images are used by the test loader only.

    Args:
        settings: See `ImageSettings`.

    Attributes:
        settings: All settings.
        batch_size: Images of a batch, over all devices.
        seed: Seed of the order and the augmentation.
        transforms: Transforms of single images, "train" and "eval".
        resize: Method by which images of other proportions are resized.
        loss_table: Last losses of the training images under `hard_fraction`, from `train_dataloader` on; else None.
        without_val: Override that leaves out a validation split of the data; None if there is none.
        info: Description of the data set, from `setup` on.
        train_indices: Rows of the official training split to train on, shape n_train, ascending.
        val_indices: Rows of the official training split to validate on, shape n_val, ascending.
        test_indices: Rows of the official training split to test on, without an official test split, shape n_test.

    Raises:
        UserError: if there are other settings than those of `ImageSettings`.
    """

    resize: Resize = "squash"
    without_val: ClassVar[str | None] = None
    info: DatasetInfo
    train_indices: Tensor
    val_indices: Tensor
    test_indices: Tensor

    def __init__(self, **settings: Unpack[ImageSettings]) -> None:
        super().__init__()
        expected = ImageSettings.__annotations__.keys()
        problems = [f"lacks {key}" for key in expected - settings.keys()]
        problems += [f"has no {key}" for key in settings.keys() - expected]
        if problems:
            raise UserError(
                f"data: {type(self).__name__} {', '.join(sorted(problems))}. Add `defaults: [base/images]` to its "
                "YAML, which has the settings of all data sets, and pass them on in its constructor as **settings"
            )
        self.settings = settings
        self.batch_size, self.seed = settings["batch_size"], settings["seed"]
        self.transforms = make_transforms(settings["transforms"], settings["seed"])
        self.augment = Augmentation(
            seed=settings["seed"],
            crop_padding=settings["crop_padding"],
            flip=settings["flip"],
            color_jitter=settings["color_jitter"],
            rand_augment=settings["rand_augment"],
            cutout=settings["cutout"],
        )
        self.mixing = Mixing(seed=settings["seed"], mixup=settings["mixup"], cutmix=settings["cutmix"])
        self.loss_table: LossTable | None = None
        self._splits: ImageArrays | StreamedImages | None = None
        self._resident: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def load_images(self) -> ImageArrays | StreamedImages:
        """Load the official splits; called once, in every process, after `prepare_data` ran in one of them."""

    @property
    def cache_folder(self) -> Path | None:
        """Folder that keeps darkened images, so that they are computed once; None for none."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Load images, split and description, for every stage at once; the second call does nothing.

        Raises:
            UserError: for settings that don't fit the data.
        """
        if self._splits is not None:
            return
        splits = self.load_images()
        if (low_light := self.settings["low_light"]) is not None:
            splits = darken_splits(splits, LowLight.from_settings(low_light), self.cache_folder)
        rows = self.split_rows(splits)
        self.train_indices, self.val_indices, self.test_indices = rows.train, rows.val, rows.test
        self.train_shape, eval_shape = self._transformed_shapes(splits)
        self.info = self._describe(splits, eval_shape, rows.notes)
        check_image_shape(self.settings, self.train_shape)
        self.preprocess = Preprocess(image_size=self.info.image_shape[1:], mean=self.info.mean, std=self.info.std)
        self._splits = splits

    def _transformed_shapes(
        self, splits: ImageArrays | StreamedImages
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return the shapes of the images, c h w, after the transforms of training and of evaluation."""
        if not any(self.transforms.values()):
            return splits.image_shape, splits.image_shape
        rows, read = torch.cat([self.train_indices, self.test_indices]), splits.read("train")
        if not len(rows):  # other images than those of the training are evaluated
            rows, read = torch.arange(len(splits.test_labels)), splits.read("test")
        indices = evenly_spaced(rows, _NUM_CHECKED).tolist()
        images = [read(index) for index in indices]
        shapes = [
            transforms.output_shape(images, indices) if transforms else splits.image_shape
            for transforms in (self.transforms["train"], self.transforms["eval"])
        ]
        if shapes[0][0] != shapes[1][0]:
            raise UserError(
                f"data.transforms: images of the training have {shapes[0][0]} channels after them, those of the "
                f"evaluation {shapes[1][0]}; train and eval need the same transforms of channels, such as Grayscale"
            )
        return shapes[0], shapes[1]

    def split_rows(self, splits: ImageArrays | StreamedImages) -> SplitRows:
        """Choose the rows of the official training split to train and to validate on."""
        return self._split_validation(splits, torch.arange(len(splits.train_labels) - splits.num_val))

    def _split_validation(self, splits: ImageArrays | StreamedImages, rows: Int64[Tensor, " n"]) -> SplitRows:
        """Split these rows into training and validation, unless the data have a validation split of their own."""
        none = torch.empty(0, dtype=torch.int64)
        settings, labels, names = self.settings, splits.train_labels[rows], splits.class_names
        folds, fold = settings["folds"], settings["fold"]
        if splits.num_val:
            if folds is not None:
                raise UserError(
                    f"data.folds={folds}: {splits.name} has {splits.num_val:,} validation images of its own, so the "
                    "training images are not split; set data.folds=null data.fold=null"
                    + (f"; or {self.without_val} leaves those out" if self.without_val else "")
                )
            num_images = len(splits.train_labels)
            note = f"validation on the {splits.num_val:,} images of the validation split, not on data.val_size others"
            return SplitRows(rows, torch.arange(num_images - splits.num_val, num_images), none, notes=(note,))
        if folds is not None and fold is not None:
            train, val = stratified_fold(labels, class_names=names, folds=folds, fold=fold, seed=settings["val_seed"])
            note = f"validation on fold {fold} of {folds} (data.fold): {len(val):,} images; data.val_size is not used"
            return SplitRows(rows[train], rows[val], none, notes=(note,))
        train, val = stratified_split(
            labels, class_names=names, size=settings["val_size"], seed=settings["val_seed"], setting="data.val_size"
        )
        return SplitRows(rows[train], rows[val], none)

    @property
    def arrays(self) -> ImageArrays:
        """The decoded splits; `Batch.indices` are rows of them.

        Raises:
            UserError: if the images are streamed.
        """
        assert self._splits is not None, "setup() comes first"
        if not isinstance(self._splits, ImageArrays):
            raise UserError("the images are streamed from their files, so there are no arrays: set data.storage=memory")
        return self._splits

    def train_dataloader(self) -> BatchLoader:
        """Return the loader of the training images, in a new order each epoch.

        With `Trainer(overfit_batches=...)` the order stays, and no images are drawn by their losses, or the batches
        would be others in each epoch.

        Raises:
            UserError: if the task or its network can't be trained with the settings.
        """
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # Lightning gives it no type
        task = None if self.trainer is None else self.trainer.lightning_module
        if task is not None:
            check_task(task, self.mixing, self.settings["hard_fraction"])
            self._check_sizes(task)
        self.loss_table = None if overfits else self._find_loss_table()
        mixing = self.mixing if self.mixing.active else None
        return self._loader(
            "train",
            self.train_indices,
            is_training=True,
            shuffle=not overfits,
            mixing=mixing,
            loss_table=self.loss_table,
        )

    def _find_loss_table(self) -> LossTable | None:
        """Return the table of the training in progress, or a new one for a training that begins."""
        fraction, trainer = self.settings["hard_fraction"], self.trainer
        if fraction == 1:
            return None
        if self.loss_table is not None and trainer is not None and trainer.current_epoch > 0:
            return self.loss_table
        assert self._splits is not None, "setup() comes first"
        return LossTable(len(self._splits.train_labels), fraction, self._device)

    def _check_sizes(self, task: LightningModule) -> None:
        """Raise a UserError unless the network takes training images, which may be smaller than those of evaluation."""
        (num_channels, *size), progressive = self.train_shape, self.settings["progressive_sizes"]
        if progressive:
            setting, remedy = f"data.progressive_sizes={list(progressive)}", "data.progressive_sizes=null"
            check_network(task, [(size, size) for size in progressive], num_channels, setting, remedy)
        elif self.train_shape != self.info.image_shape:
            remedy = "data.transforms.train and eval that give images of one size"
            check_network(task, [(size[0], size[1])], num_channels, "data.transforms", remedy)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the loader of the validation images; without any an empty list, which disables validation."""
        return self._loader("train", self.val_indices) if len(self.val_indices) else []

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the loader of the test images, in stored order; without any an empty list."""
        if len(self.test_indices):
            return self._loader("train", self.test_indices)
        return self._loader("test", torch.arange(self.info.num_test)) if self.info.num_test else []

    def example_images(self, num_images: int) -> Float[Tensor, "b c h w"]:
        """Return at most so many training images, evenly spaced, prepared as in evaluation, on the CPU."""
        loader = self._loader("train", evenly_spaced(self.train_indices, num_images))
        return torch.cat([self.transform_batch(batch, epoch=None).images for batch in loader])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device, unless its images are in the memory of the device already."""
        if batch.images.device == device:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training only) and normalize, on the batch's device."""
        trainer = self.trainer
        epoch = trainer.current_epoch if trainer is not None and trainer.training else None
        if epoch and batch.loss_table is not None and not batch.loss_table.has_losses:
            raise UserError(
                f"data.hard_fraction={self.settings['hard_fraction']}: the task has recorded no loss in a whole epoch: "
                "let its training_step call `batch.loss_table.record(batch.indices[:batch.num_valid], losses)` with a "
                "loss for each image, or set data.hard_fraction=1"
            )
        return self.transform_batch(batch, epoch=epoch)

    def transform_batch(self, batch: Batch, *, epoch: int | None) -> Batch:
        """Augment, normalize and mix a batch.

        Args:
            batch: A batch of uint8 images from a loader.
            epoch: The epoch that the augmentation is drawn for; None for no augmentation.

        Returns:
            The batch with float images in the dtype and memory format of the Trainer's LightningModule; float32 without
            a Trainer.
        """
        if epoch is None:
            return batch._replace(images=self._match_task(self._normalize(batch.images)))
        if batch.partners is None:
            return batch._replace(images=self._match_task(self._augment(batch.images, batch.indices, epoch)))
        both = torch.cat([batch.images, batch.partners.images]), torch.cat([batch.indices, batch.partners.indices])
        images, num_images = self._augment(*both, epoch), len(batch.images)
        images, lam = self.mixing(images[:num_images], images[num_images:], batch.indices, epoch)
        return batch._replace(images=self._match_task(images), partners=batch.partners._replace(lam=lam))

    def _augment(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        images = self._normalize(self.augment.on_pixels(images, indices, epoch))
        sizes, trainer = self.settings["progressive_sizes"], self.trainer
        if sizes and trainer is not None:  # without a Trainer the number of epochs is unknown
            assert trainer.max_epochs is not None
            images = shrink(images, epoch_size(sizes, epoch, trainer.max_epochs))
        return self.augment.on_normalized(images, indices, epoch)

    def _normalize(self, pixels: Tensor) -> Tensor:
        return self.preprocess.to(pixels.device).normalize(pixels)

    def _match_task(self, images: Tensor) -> Tensor:
        """Convert images to the dtype and memory format of the task."""
        task = None if self.trainer is None else self.trainer.lightning_module
        if task is None:
            return images
        dtype = task.dtype if isinstance(task.dtype, torch.dtype) else images.dtype
        return images.to(dtype, memory_format=getattr(task, "memory_format", torch.preserve_format))

    @property
    def _device(self) -> torch.device:
        """Device that the Trainer trains on; the CPU without one."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _loader(
        self,
        split: Literal["train", "test"],
        indices: Tensor,
        *,
        is_training: bool = False,
        shuffle: bool = False,
        mixing: Mixing | None = None,
        loss_table: LossTable | None = None,
    ) -> BatchLoader:
        trainer, splits, device = self.trainer, self._splits, self._device
        assert splits is not None, "setup() comes first"
        in_workers = bool(self.transforms["train" if is_training else "eval"]) or isinstance(splits, StreamedImages)
        indices = indices if in_workers else indices.to(device)
        args = LoaderArgs(
            sampler=EpochSampler(indices=indices, seed=self.seed, shuffle=shuffle, loss_table=loss_table),
            batch_size=self.batch_size,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            mixing=mixing,
        )
        if in_workers:
            return self._worker_loader(splits, split, is_training, pin_memory=device.type == "cuda", **args)
        if (split, device) not in self._resident:  # moved once, for all loaders
            arrays = self.arrays
            images, labels = arrays.train_images, arrays.train_labels
            if split == "test":
                images, labels = arrays.test_images, arrays.test_labels
            self._resident[split, device] = images.to(device), labels.to(device)
        images, labels = self._resident[split, device]
        return MemoryLoader(images=images, labels=labels, **args)

    def _worker_loader(
        self,
        splits: ImageArrays | StreamedImages,
        split: Literal["train", "test"],
        is_training: bool = False,
        pin_memory: bool = False,
        **args: Unpack[LoaderArgs],
    ) -> WorkerLoader:
        return WorkerLoader(
            splits.read(split),
            splits.train_labels if split == "train" else splits.test_labels,
            transforms=self.transforms["train" if is_training else "eval"],
            is_training=is_training,
            num_workers=self.settings["num_workers"],
            pin_memory=pin_memory,
            persistent_workers=is_training,
            **args,
        )

    def _count_classes(self, splits: ImageArrays | StreamedImages) -> tuple[int, ...] | None:
        labels = splits.train_labels[self.train_indices]
        return tuple(labels.bincount(minlength=len(splits.class_names)).tolist())

    def _describe(
        self, splits: ImageArrays | StreamedImages, image_shape: tuple[int, int, int], notes: tuple[str, ...]
    ) -> DatasetInfo:
        configured = [f"data.{key}" for key in ("mean", "std") if self.settings[key] is not None]
        mean, std, computed = (0.0,) * image_shape[0], (1.0,) * image_shape[0], ""
        if len(configured) < 2:
            mean, std, computed = self._measure(splits, image_shape)
        source = f"{' and '.join(configured)} as configured" if configured else computed
        if len(configured) == 1:
            source += f", the other {computed}"
        return DatasetInfo(
            name=splits.name,
            class_names=splits.class_names,
            image_shape=image_shape,
            mean=_per_channel("mean", self.settings["mean"], mean),
            std=_per_channel("std", self.settings["std"], std),
            statistics_source=source,
            fingerprint=split_fingerprint(splits),
            num_train=len(self.train_indices),
            num_val=len(self.val_indices),
            num_test=len(splits.test_labels) or len(self.test_indices),
            notes=(*splits.notes, *_pixel_notes(splits), *notes),
            bit_depth=splits.bit_depth,
            skipped=splits.skipped,
            resize=self.resize,
            transformed_from=splits.image_shape if self.transforms["eval"] else None,
            class_counts=self._count_classes(splits),
        )

    def _measure(
        self, splits: ImageArrays | StreamedImages, image_shape: tuple[int, int, int]
    ) -> tuple[tuple[float, ...], tuple[float, ...], str]:
        """Return mean and deviation of the training images after the transforms of evaluation, and their source."""
        rows, num_pixels = self.train_indices, image_shape[1] * image_shape[2]
        if not self.transforms["eval"]:
            computed = f"computed from the {len(rows):,} training images"
            return *mean_and_std(splits.train_sums[rows], num_pixels), computed
        rows = evenly_spaced(rows, _MAX_MEASURED)
        sampler = EpochSampler(indices=rows, seed=self.seed, shuffle=False)
        args = LoaderArgs(sampler=sampler, batch_size=self.batch_size, rank=0, world_size=1, mixing=None)
        loader = self._worker_loader(splits, "train", **args)
        sums = np.concatenate([pixel_sums(batch.images.numpy()) for batch in loader])
        computed = f"computed from {len(rows):,} training images after data.transforms.eval"
        return *mean_and_std(torch.from_numpy(sums), num_pixels), computed


def evenly_spaced(rows: Int64[Tensor, " n"], num_rows: int) -> Int64[Tensor, " m"]:
    """Return at most so many of the rows, evenly spaced."""
    num_rows = min(num_rows, len(rows))
    return rows[torch.arange(num_rows) * len(rows) // max(1, num_rows)]


def split_fingerprint(splits: ImageArrays | StreamedImages) -> str:
    """Return the fingerprint of images and labels, and of a validation split that the data have."""
    if not splits.num_val:
        return splits.fingerprint
    return hashlib.sha256(f"{splits.fingerprint} {splits.num_val}".encode()).hexdigest()


def check_image_shape(settings: ImageSettings, image_shape: tuple[int, int, int]) -> None:
    """Raise a UserError unless images of this shape (c, h, w) can be augmented as configured."""
    num_channels, height, width = image_shape
    smallest = min(height, width)
    if settings["crop_padding"] >= smallest:
        raise UserError(
            f"data.crop_padding={settings['crop_padding']} must be smaller than the images "
            f"({smallest} pixels): a reflection can't be wider than the image"
        )
    if settings["cutout"] > smallest:
        raise UserError(
            f"data.cutout={settings['cutout']}: the side of the square that is erased can't be larger than the images "
            f"({smallest} pixels); half of that is usual"
        )
    for key in ("color_jitter", "rand_augment"):
        if settings[key] is not None and num_channels not in (1, 3):
            raise UserError(
                f"data.{key} is for images of 1 (gray) or 3 (red, green, blue) channels, not of {num_channels}: "
                "set it to null"
            )
    sizes = settings["progressive_sizes"]
    if not sizes:
        return
    setting = f"data.progressive_sizes={list(sizes)}"
    if height != width or sizes[-1] != height:
        raise UserError(
            f"{setting}: the last must be the images' own size, which is {height}x{width}, "
            + (f"as in [{height * 3 // 4}, {height}]" if height == width else "and only square images can be shrunk")
        )
    for size in sizes:
        if not _MIN_SIZE <= size <= height:
            raise UserError(f"{setting}: expected sizes from {_MIN_SIZE} to the images' own, {height}; found {size}")


def check_task(task: LightningModule, mixing: Mixing, hard_fraction: int | float) -> None:
    """Raise a UserError unless the task does what mixing, or drawing images by their loss, needs."""
    if mixing.active and not getattr(task, "supports_mixed_targets", False):
        raise UserError(
            f"data.mixup, data.cutmix: {type(task).__name__} would learn from mixed images as if each had one label. "
            "If its loss weighs the labels of `batch.partners` by their `lam`, give it an attribute "
            "`supports_mixed_targets = True`. Otherwise set both to 0"
        )
    if hard_fraction < 1 and not getattr(task, "records_losses", False):
        raise UserError(
            f"data.hard_fraction={hard_fraction}: {type(task).__name__} does not tell the loss of each image, by which "
            "they would be drawn. If its training_step passes them to `batch.loss_table.record`, give it an attribute "
            "`records_losses = True`. Otherwise set data.hard_fraction=1"
        )


def check_network(
    task: LightningModule, sizes: Sequence[tuple[int, int]], num_channels: int, setting: str, remedy: str
) -> None:
    """Raise a UserError unless the network of a task can be applied to images of each of these heights and widths.

    The setting that causes these sizes, and another one that does not, are for the message.
    """
    for height, width in sorted(set(sizes)):
        if error := find_network_error(task, (num_channels, height, width)):
            raise UserError(
                f"{setting}: {type(task.network).__name__} can't take images of {height}x{width} "
                f"({str(error).splitlines()[0]}). Take a network without a fixed image size, such as model=resnet18, "
                f"or {remedy}"
            ) from error


def find_network_error(task: LightningModule, image_shape: tuple[int, ...]) -> RuntimeError | None:
    """Return the error of the network of a task for an image of this shape, c h w; None without one."""
    network = getattr(task, "network", None)
    if not isinstance(network, nn.Module):
        return None
    images = torch.zeros(1, *image_shape, device=task.device, dtype=task.dtype)  # type: ignore[arg-type]
    training = [module for module in network.modules() if module.training]
    try:
        with torch.no_grad():
            network.eval().forward(images)  # not called, or a compiled network would be compiled for this size
    except RuntimeError as error:
        return error
    finally:
        for module in training:
            module.training = True
    return None


def _pixel_notes(splits: ImageArrays | StreamedImages) -> tuple[str, ...]:
    """Describe which images are left out, and how 16-bit images are scaled, in a sentence each."""
    notes = []
    if splits.skipped:
        listed, num_more = ", ".join(splits.skipped[:_MAX_LISTED]), len(splits.skipped) - _MAX_LISTED
        listed += f" and {num_more:,} more, all in dataset.json" if num_more > 0 else ""
        notes.append(printable(f"left out, since they can't be decoded (data.skip_unreadable=true): {listed}"))
    if splits.bit_depth is not None and splits.bit_depth < MAX_BIT_DEPTH:
        notes.append(
            f"16-bit images are scaled from {splits.bit_depth} bits: {2**splits.bit_depth - 1:,} is white "
            "(data.bit_depth)"
        )
    return tuple(notes)


def _per_channel(key: str, configured: Sequence[float] | None, computed: tuple[float, ...]) -> tuple[float, ...]:
    if configured is None:
        return computed
    if len(configured) != len(computed):
        raise UserError(
            f"data.{key} has {len(configured)} values, but the images have {len(computed)} channels: "
            "give one for each, or null for the data set's own"
        )
    return tuple(float(value) for value in configured)
