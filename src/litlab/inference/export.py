"""A predictor as a file for other programs: ONNX, or torch.export's pt2."""

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from litlab.errors import UserError
from litlab.inference.predictor import Predictor

Program = TypeVar("Program")
TOLERANCE = 1e-5  # of a probability
CHECKED_BATCHES = (1, 5)


class PixelsToProbabilities(nn.Module):
    """What a file holds: preprocessing, network and softmax in one."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.network
        self.preprocess = predictor.preprocess
        self._logits = predictor.logits

    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        return self._logits(self.preprocess(images)).softmax(dim=1)


def to_onnx(predictor: Predictor) -> bytes:
    """An ONNX file, checked with onnxruntime.

    Raises:
        UserError: if the network can't be translated, or the file gives other probabilities.
    """
    onnx, onnxruntime = import_module("onnx"), import_module("onnxruntime")
    module = PixelsToProbabilities(predictor).eval()
    program = _translated(
        predictor,
        lambda: torch.onnx.export(
            module,
            (_images(predictor, 2),),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        ),
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {**_description(predictor), "litlab": version("litlab")})
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _check(predictor, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))
    return content


def to_pt2(predictor: Predictor) -> bytes:
    """A file for `torch.export.load`, checked by loading it.

    Raises:
        UserError: if the network can't be traced, or the file gives other probabilities.
    """
    module = PixelsToProbabilities(predictor).eval()

    def export() -> ExportedProgram:
        return torch.export.export(module, (_images(predictor, 2),), dynamic_shapes=({0: Dim("batch")},))

    stream = io.BytesIO()
    torch.export.save(
        _translated(predictor, export), stream, extra_files={"litlab.json": json.dumps(_description(predictor))}
    )
    stream.seek(0)
    with _quiet():
        exported = torch.export.load(stream).module()
    _check(predictor, exported)
    return stream.getvalue()


EXPORTERS = {"onnx": to_onnx, "pt2": to_pt2}


def _translated(predictor: Predictor, export: Callable[[], Program]) -> Program:
    try:
        with _quiet():
            return export()
    except Exception as error:  # torch raises many kinds for what it can't trace or translate
        cause = error.__cause__ or error
        raise UserError(
            f"{type(predictor.network).__name__} can't be exported: torch can't follow its forward for any batch size "
            f"({type(cause).__name__}: {str(cause).strip().splitlines()[0]})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings inside torch and onnxscript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _images(predictor: Predictor, num_images: int) -> UInt8[Tensor, "b c h w"]:
    """Noise, always the same."""
    generator = torch.Generator().manual_seed(num_images)
    shape = (num_images, *predictor.dataset_info.image_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _check(predictor: Predictor, exported: Callable[[Tensor], Tensor]) -> None:
    """Raises:
    UserError: if the exported network differs from the network.
    """
    for num_images in CHECKED_BATCHES:
        images = _images(predictor, num_images)
        expected, found = predictor(images), exported(images)
        difference = (found - expected).abs().max().item() if found.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported network differs by {difference:.2g} from the network for {num_images} images "
                f"(at most {TOLERANCE:g} expected), so no file was written: does its forward depend on the batch?"
            )


def _description(predictor: Predictor) -> dict[str, str]:
    c, h, w = predictor.dataset_info.image_shape
    return {
        "class_names": json.dumps(predictor.class_names, ensure_ascii=False),
        "input": f"images: uint8 (batch, {c}, {h}, {w}), 0 to 255, {'RGB' if c == 3 else 'channels as in training'}",
        "output": f"probabilities: float32 (batch, {len(predictor.class_names)})",
    }
