"""Trained network with its preprocessing and class names, rebuilt from a run directory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from litlab.config.targets import find_base, import_target
from litlab.data.dataset_info import DatasetInfo
from litlab.data.image_decoder import MAX_BIT_DEPTH, decode_image, image_pixels
from litlab.data.preprocess import Preprocess
from litlab.data.transforms import EVALUATION_EPOCH, ImageTransforms
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.tasks.tta import TTA
from litlab.training.build import Facts, build_network, build_transforms
from litlab.training.checkpoint_io import read_network_weights

Image = Tensor | np.ndarray | PIL.Image.Image | str | os.PathLike[str]
_MAX_NAMES = 10  # of classes in a repr
BATCH_SIZE = 128  # images that are in memory as floats at once
_LUMA = (19595, 38470, 7471)  # ITU-R 601-2 in 1/65536, as Pillow converts color to gray
_IMAGES = "expected images as a uint8 tensor (c h w or b c h w), uint8 array (h w c or h w), PIL image or path"


class Predictor:
    """Predictor of class probabilities, computed as in the run's own validation and test.

    For example::

        predictor = litlab.load("outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c")
        predictor("cat.jpg")               # tensor, 1 num_classes
        predictor.predict(["cat.jpg"])     # [("cat", 0.97)]

    Attributes:
        network: in evaluation mode; from normalized images, float `b c h w`, to logits, `b num_classes`.
        preprocess: from uint8 images, `b c h w` of any height and width, to what the network takes; without transforms.
        transforms: transforms of `data.transforms.eval`, between the resizing and the normalization of `preprocess`.
        dataset_info: of the data set of the run.
        tta: test-time augmentation, as in the run's test.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        preprocess: Preprocess,
        dataset_info: DatasetInfo,
        tta: TTA,
        transforms: ImageTransforms,
    ) -> None:
        self.network = network.eval()
        self.preprocess = preprocess
        self.transforms = transforms
        self.dataset_info = dataset_info
        self.tta = tta

    def __repr__(self) -> str:
        names, (c, h, w) = self.class_names, self.dataset_info.image_shape
        shown = ", ".join(names[:_MAX_NAMES]) + ", ..." * (len(names) > _MAX_NAMES)
        num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"Predictor({type(self.network).__name__} with {num_parameters:,} parameters, for images of {h}x{w}x{c}; "
            f"{len(names)} classes: {shown})"
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the probabilities."""
        return self.dataset_info.class_names

    def to(self, device: str | torch.device) -> "Predictor":
        """Move network and preprocessing to a device, on which the probabilities will be, too."""
        self.network.to(device)
        self.preprocess.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Image | Sequence[Image]) -> Float[Tensor, "b num_classes"]:
        """Compute probabilities, float32, one row for each image, which add up to 1.

        Args:
            images: One of these or a list of them, of any height and width: a uint8 tensor, `c h w` or `b c h w`; a
                uint8 array, `h w c` or `h w`; a PIL image; the path of a JPEG, PNG or WebP file. Images of another size
                than the network was trained on are resized as the training images were. Gray ones are
                converted, transparent ones composed on white.

        Raises:
            UserError: For an image that can't be read or is none of these.
        """
        parts = [self.logits(batch).softmax(dim=1) for batch in self._batches(images)]
        return torch.cat(parts) if parts else torch.empty(0, self.dataset_info.num_classes)

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Compute logits of normalized images, float32, as in the run's test."""
        return self.tta.logits(self.network, images)

    def predict(self, images: Image | Sequence[Image]) -> list[tuple[str, float]]:
        """Return the most probable class of each image with its probability, for the images that a call takes."""
        probabilities, classes = self(images).max(dim=1)
        return [(self.class_names[k], p) for k, p in zip(classes.tolist(), probabilities.tolist(), strict=True)]

    def pixels(self, image: Image) -> UInt8[Tensor, "b c h w"]:
        """Convert an image, or a tensor of several, to uint8 with the channels of the data set.

        Files and PIL images are resized.

        Raises:
            UserError: As a call does.
        """
        size, resize = self.preprocess.image_size, self.preprocess.method
        bit_depth = self.dataset_info.bit_depth or MAX_BIT_DEPTH
        if isinstance(image, str | os.PathLike):
            try:
                content = Path(image).read_bytes()
            except OSError as error:
                raise UserError(f"{Path(image)} can't be read: {error.strerror}") from error
            pixels = _to_tensor(decode_image(content, size, str(image), bit_depth, resize))
        elif isinstance(image, PIL.Image.Image):
            pixels = _to_tensor(image_pixels(image, size, bit_depth, resize))
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise UserError(f"{_IMAGES}; found {image.dtype} of shape {image.shape}")
            pixels = _to_tensor(np.atleast_3d(image).transpose(2, 0, 1))
        elif isinstance(image, Tensor):
            pixels = image[None] if image.ndim == 3 else image
        else:
            raise UserError(f"{_IMAGES}; found a {type(image).__name__}")
        if pixels.ndim != 4 or pixels.dtype != torch.uint8:
            shape, dtype = tuple(image.shape), image.dtype  # type: ignore[union-attr]  # files and PIL images are uint8
            raise UserError(f"{_IMAGES}; found {dtype} of shape {shape}")
        return _with_channels(pixels, (self.dataset_info.transformed_from or self.dataset_info.image_shape)[0])

    def _batches(self, images: Image | Sequence[Image]) -> Iterator[Float[Tensor, "b c h w"]]:
        device = self.preprocess.scale.device
        if isinstance(images, list | tuple):
            for first in range(0, len(images), BATCH_SIZE):
                pixels = [self.pixels(image) for image in images[first : first + BATCH_SIZE]]
                yield torch.cat([self._prepare(image, device) for image in pixels])
        else:
            batch = self.pixels(images)  # type: ignore[arg-type]  # not a list
            for first in range(0, len(batch), BATCH_SIZE):
                yield self._prepare(batch[first : first + BATCH_SIZE], device)

    def _prepare(self, pixels: UInt8[Tensor, "b c h w"], device: torch.device) -> Float[Tensor, "b c h w"]:
        """Resize, transform and normalize images, as in validation and test."""
        if not self.transforms:
            prepared: Tensor = self.preprocess(pixels.to(device))
            return prepared
        resized = self.preprocess.resize(pixels.to(device)).cpu()
        indices = [0] * len(resized)  # a random transform has the random numbers of the first image
        images = self.transforms(list(resized), indices, EVALUATION_EPOCH)
        self.transforms.check_shapes(images, indices, self.dataset_info.image_shape)
        return self.preprocess.normalize(torch.stack(images).to(device))


def load(directory: str | os.PathLike[str], checkpoint: str | None = None, allow: Iterable[str] = ()) -> Predictor:
    """Rebuild the trained network of a run, with the arguments and errors of `litlab.load`."""
    finished = FinishedRun.open(directory, allow, parts=("model",))
    path = finished.find_checkpoint(checkpoint)
    node = finished.select_settings("model")["model"]
    if not node:
        raise UserError(
            f"{finished.run.path} has no network of its own (model: null in config.yaml), so none can be loaded"
        )
    info = finished.dataset_info()
    state = read_network_weights(path)
    try:
        with torch.random.fork_rng(devices=[]):  # initializing weights must not move the caller's
            network = build_network(node, Facts(info))
    except UserError as error:
        where = f"\n(its project folder is {finished.run.project()})" if finished.own else ""
        raise UserError(f"{finished.run.path}: {error}{where}") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights are not those of the network in config.yaml; has the code of "
            f"{node['_target_']} changed? provenance.json holds the commit it was trained at\n{error}"
        ) from error
    _, height, width = info.transformed_from or info.image_shape
    preprocess = Preprocess(image_size=(height, width), mean=info.mean, std=info.std, resize=info.resize)
    setting = "data.transforms.eval"
    nodes = finished.evaluation_transforms() if info.transformed_from else []
    transforms = ImageTransforms(
        build_transforms(setting, nodes), seed=(finished.config["data"] or {}).get("seed", 0), setting=setting
    )
    return Predictor(
        network=network, preprocess=preprocess, dataset_info=info, tta=_make_tta(finished), transforms=transforms
    )


def _make_tta(finished: FinishedRun) -> TTA:
    """Return the test-time augmentation of a run; that of a task that is not litlab's is not known."""
    task = finished.config["task"]
    keys = ("test_time_flip", "test_time_shift", "test_time_margin")
    target = task["_target_"]
    is_ours = target == "litlab.tasks.image_classifier.ImageClassifier"
    if not is_ours and finished.own and any(key in task for key in keys):
        is_ours = find_base(import_target(target)) == "litlab.tasks.image_classifier.ImageClassifier"
    if not is_ours:
        return TTA(flip=False, shift=0)
    flip, shift, margin = (task.get(key) for key in keys)
    return TTA(flip=bool(flip), shift=shift or 0, margin=margin)


def _to_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy())[None]  # arrays of images may be read-only


def _with_channels(pixels: Tensor, num_channels: int) -> Tensor:
    """Compose on white where there is an alpha channel; convert gray to color or color to gray."""
    channels = pixels.shape[1]
    opaque = _on_white(pixels) if channels in (2, 4) and channels != num_channels else pixels
    if opaque.shape[1] == num_channels:
        return opaque
    if opaque.shape[1] == 1 and num_channels == 3:
        return opaque.expand(-1, 3, -1, -1)
    if opaque.shape[1] == 3 and num_channels == 1:
        luma = torch.tensor(_LUMA)[:, None, None]
        return ((opaque.cpu() * luma).sum(dim=1, keepdim=True) + 2**15 >> 16).to(torch.uint8)
    raise UserError(f"an image has {channels} channels, but the network was trained on {num_channels}; {_IMAGES}")


def _on_white(pixels: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b colors h w"]:
    """Compose on white as Pillow does, rounded; alpha is the last channel."""
    colors, alpha = pixels[:, :-1].int(), pixels[:, -1:].int()
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
