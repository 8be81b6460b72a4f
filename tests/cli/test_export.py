"""`litlab export`: the files, read back by onnxruntime and torch, against the network."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from support.saved_run import make_info, make_predictor
from torch import Tensor, nn

from litlab.cli import export
from litlab.errors import UserError
from litlab.inference import export as exporting
from litlab.inference.predictor import Predictor, load
from litlab.models.resnet import ResNet18
from litlab.runs.directory import RunDirectory
from litlab.tasks.tta import TTA

INFO = replace(make_info(size=16), class_names=("ä, b", "c", "d"))


def random_images(num_images: int, size: int) -> Tensor:
    return torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)


def run_onnx(content: bytes, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])


def assert_same_probabilities(exported: Callable[[Tensor], Tensor], predictor: Predictor) -> None:
    for num_images in (1, 5):
        images = random_images(num_images, predictor.dataset_info.image_shape[1])
        torch.testing.assert_close(exported(images), predictor(images), atol=1e-5, rtol=0)


@pytest.mark.integrations
def test_onnx_of_a_run(tiny_run: RunDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "network.onnx"
    export.main([str(tiny_run.path), "--format", "onnx", "--output", str(output)])
    printed = capfd.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    predictor = load(tiny_run.path)
    assert_same_probabilities(partial(run_onnx, output.read_bytes()), predictor)
    metadata = onnxruntime.InferenceSession(output).get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["class_names"])) == predictor.class_names
    assert metadata["input"] == "images: uint8 (batch, 3, 32, 32), 0 to 255, RGB"
    assert (metadata["resize"], metadata["resized_to"]) == ("squash", "32x32, before transforms")


@pytest.mark.integrations
def test_onnx_of_a_resnet_with_moved_statistics() -> None:
    torch.manual_seed(0)
    network = ResNet18(num_classes=3, image_shape=(3, 16, 16), width=4)
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 16, 16))
    predictor = make_predictor(network, INFO)
    assert_same_probabilities(partial(run_onnx, exporting.to_onnx(predictor)), predictor)
    assert np.ptp(predictor(random_images(5, 16)).numpy(), axis=0).max() > 1e-4, "the images matter"


def test_the_file_and_a_note_say_how_images_are_resized(
    tiny_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    predictor = load(tiny_run.path)
    predictor.preprocess.method, predictor.preprocess.image_size = "pad", (40, 48)
    monkeypatch.setattr("litlab.inference.predictor.load", lambda *arguments: predictor)
    export.main([str(tiny_run.path), "--format", "pt2", "--output", str(tmp_path / "network.pt2")])
    extra = {"litlab.json": ""}
    torch.export.load(tmp_path / "network.pt2", extra_files=extra)
    metadata = json.loads(extra["litlab.json"])
    assert (metadata["resize"], metadata["resized_to"]) == ("pad", "40x48, before transforms")
    assert "resized to 40x48 by data.resize=pad, which is not in the file" in capfd.readouterr().out


def test_pt2_of_a_run(tiny_run: RunDirectory, tmp_path: Path) -> None:
    output = tmp_path / "network.pt2"
    export.main([str(tiny_run.path), "--format", "pt2", "--output", str(output)])
    extra = {"litlab.json": ""}
    module = torch.export.load(output, extra_files=extra).module()
    predictor = load(tiny_run.path)
    assert_same_probabilities(module, predictor)
    assert tuple(json.loads(json.loads(extra["litlab.json"])["class_names"])) == predictor.class_names


@pytest.mark.integrations
@pytest.mark.parametrize(("shift", "margin"), [(0, None), (1, 0.2)])
@pytest.mark.parametrize("export_to", [exporting.to_onnx, exporting.to_pt2])
def test_copies_are_averaged_in_the_file_too(
    export_to: Callable[[Predictor], bytes], shift: int, margin: float | None
) -> None:
    """The export itself compares the file with the predictor."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    predictor = make_predictor(network, INFO, TTA(flip=True, shift=shift, margin=margin))
    images = random_images(5, 16)
    assert len(export_to(predictor)) > 0
    alone = make_predictor(network, INFO)(images)
    first, second = alone.topk(2, dim=1).values.unbind(1)
    is_sure = first - second >= (margin or 1)
    assert is_sure.any() == (margin is not None)
    assert not is_sure.all()
    assert torch.equal((predictor(images) - alone).abs().amax(dim=1) < 1e-3, is_sure)
    is_symmetric = torch.allclose(predictor(images), predictor(images.flip(3)), atol=1e-3)
    assert is_symmetric == (shift == 0)  # moved images are others than those that mirror images are moved to


class Centred(nn.Module):
    """Its logits depend on the batch they are in, as exported ones can't when the batch size is not known."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * (100 if len(images) == 1 else 1)


class Sorted(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * (2 if images.sum().item() > 0 else 1)


class Refusing(nn.Module):
    """Fails with an error that has no message."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise NotImplementedError
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize("network", [Centred(), Sorted(), Refusing()])
def test_a_network_that_cannot_be_exported(network: nn.Module) -> None:
    with pytest.raises(UserError, match=f"{type(network).__name__} can't be exported|differs by"):
        exporting.to_pt2(make_predictor(network, INFO))


def test_a_file_that_differs_is_refused() -> None:
    predictor = make_predictor(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), INFO)
    with pytest.raises(UserError, match=r"differs by 0\.1 from the network for 1 images"):
        exporting._check(predictor, lambda images: predictor(images) + 0.1)
    with pytest.raises(UserError, match="differs by nan"):
        exporting._check(predictor, lambda images: predictor(images) * torch.nan)


def test_files_are_replaced_only_by_force(tiny_run: RunDirectory, tmp_path: Path, monkeypatch: Any) -> None:
    output = tmp_path / "network.pt2"
    output.write_text("precious")
    monkeypatch.setitem(exporting.EXPORTERS, "pt2", lambda predictor: b"exported")
    arguments = [str(tiny_run.path), "--format", "pt2", "--output", str(output)]
    with pytest.raises(UserError, match="add --force"):
        export.main(arguments)
    assert output.read_text() == "precious"
    export.main([*arguments, "--force"])
    assert output.read_text() == "exported"
    for path in (tmp_path, tmp_path / "none" / "network.pt2"):
        with pytest.raises(UserError, match="expected a file name in an existing folder"):
            export.main([*arguments[:-1], str(path), "--force"])


def test_a_missing_extra_is_named(tiny_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"missing packages onnxruntime; .*pip install 'litlab\[onnx\]'"):
        export.main([str(tiny_run.path), "--format", "onnx", "--output", str(tmp_path / "network.onnx")])
    assert list(tmp_path.iterdir()) == []
