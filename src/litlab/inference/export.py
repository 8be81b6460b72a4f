"""Export of a predictor to a file for other programs: ONNX or torch.export's pt2."""

import io
import json
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim

from litlab.errors import UserError
from litlab.inference.predictor import Predictor
from litlab.runs.terminal import headline

TOLERANCE = 1e-5  # absolute, of a probability
CHECKED_BATCH_SIZES = (1, 5)


class PixelsToProbabilities(nn.Module):
    """Exported module: normalization, network and softmax, for images that are resized and transformed already."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.network
        self.preprocess = predictor.preprocess
        self._logits = predictor.logits

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Compute class probabilities of uint8 images."""
        return self._logits(self.preprocess.normalize(images)).softmax(dim=1)


def to_onnx(predictor: Predictor) -> bytes:
    """Export to ONNX, and check the file with onnxruntime.

    Raises:
        UserError: If torch cannot translate the network, or the file gives other probabilities.
    """
    onnx, onnxruntime = import_module("onnx"), import_module("onnxruntime")
    names = {"input_names": ["images"], "output_names": ["probabilities"]}
    program = _translate(predictor, torch.onnx.export, dynamo=True, verbose=False, **names)
    model = program.model_proto
    onnx.helper.set_model_props(model, {**_metadata(predictor), "litlab": version("litlab")})
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _check(predictor, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))
    return content


def to_pt2(predictor: Predictor) -> bytes:
    """Export to a file for `torch.export.load`, and check it by loading it.

    Raises:
        UserError: If torch cannot trace the network, or the file gives other probabilities.
    """
    program = _translate(predictor, torch.export.export)
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={"litlab.json": json.dumps(_metadata(predictor))})
    stream.seek(0)
    with warnings.catch_warnings(action="ignore"):
        exported = torch.export.load(stream).module()
    _check(predictor, exported)
    return stream.getvalue()


EXPORTERS = {"onnx": to_onnx, "pt2": to_pt2}


def _translate(predictor: Predictor, export: Callable[..., Any], **options: Any) -> Any:
    """Export to a program for any batch size."""
    module, images = PixelsToProbabilities(predictor).eval(), _random_images(predictor, 2)
    try:
        with warnings.catch_warnings(action="ignore"):  # those inside torch and onnxscript
            return export(module, (images,), dynamic_shapes=({0: Dim("batch")},), **options)
    except Exception as error:  # torch raises many kinds for what it can't trace or translate
        cause = error.__cause__ or error
        raise UserError(
            f"{type(predictor.network).__name__} can't be exported: torch can't follow its forward for any batch size "
            f"({': '.join(filter(None, (type(cause).__name__, headline(str(cause)))))})"
        ) from error


def _check(predictor: Predictor, exported: Callable[[Tensor], Tensor]) -> None:
    """Compare the exported network with the network.

    Raises:
        UserError: If they differ.
    """
    for batch_size in CHECKED_BATCH_SIZES:
        images = _random_images(predictor, batch_size)
        with torch.no_grad():
            expected, output = PixelsToProbabilities(predictor)(images), exported(images)
        difference = (output - expected).abs().max().item() if output.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported network differs by {difference:.2g} from the network for {batch_size} images "
                f"(at most {TOLERANCE:g} expected), so no file was written: does its forward depend on the batch?"
            )


def _random_images(predictor: Predictor, num_images: int) -> UInt8[Tensor, "b c h w"]:
    generator = torch.Generator().manual_seed(num_images)
    shape = (num_images, *predictor.dataset_info.image_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _metadata(predictor: Predictor) -> dict[str, str]:
    c, h, w = predictor.dataset_info.image_shape
    transforms = {"transforms": f"to be applied before: {predictor.transforms}"} if predictor.transforms else {}
    height, width = predictor.preprocess.image_size
    return transforms | {
        "resize": predictor.preprocess.method,
        "resized_to": f"{height}x{width}, before transforms",
        "class_names": json.dumps(predictor.class_names, ensure_ascii=False),
        "input": f"images: uint8 (batch, {c}, {h}, {w}), 0 to 255, {'RGB' if c == 3 else 'channels as in training'}",
        "output": f"probabilities: float32 (batch, {len(predictor.class_names)})",
    }
