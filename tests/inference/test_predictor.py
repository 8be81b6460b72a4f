"""Predictors: loading them from a run directory, and the images that they take."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from reliability.runs import SMALL
from support.exact_resume import new_run, train_until
from support.images import write_folder
from support.saved_run import (
    CLASS_NAMES,
    CNN_NODE,
    CONFIG,
    SIZE,
    as_image,
    make_info,
    make_network,
    make_predictor,
    make_run,
    save,
)
from torch import Tensor, nn

import litlab
from litlab.cli import evaluate
from litlab.errors import UserError
from litlab.inference import export
from litlab.inference.predictor import BATCH_SIZE, Predictor
from litlab.models import torchvision
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.runs.signature import sign
from litlab.training.build import build_data
from litlab.training.checkpoint_io import read_checkpoint


@pytest.fixture(autouse=True)
def _import_path_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_network(), CNN_NODE, make_info())


@pytest.fixture
def predictor() -> Predictor:
    return make_predictor(make_network(), make_info())


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_probabilities_are_those_of_the_network_that_was_saved(run: Path, pixels: Tensor) -> None:
    random_state = torch.get_rng_state()
    predictor = litlab.load(run)
    assert torch.equal(torch.get_rng_state(), random_state)
    info = predictor.dataset_info
    mean, std = (torch.tensor(values)[:, None, None] for values in (info.mean, info.std))
    expected = make_network()(((pixels / 255 - mean) / std)[None]).softmax(dim=1)
    torch.testing.assert_close(predictor(pixels), expected)
    assert not predictor.network.training
    assert not predictor(pixels).requires_grad
    assert predictor.class_names == CLASS_NAMES
    best = int(expected.argmax())
    assert predictor.predict(pixels) == [(CLASS_NAMES[best], pytest.approx(expected[0, best].item()))]


def test_best_is_the_default_and_either_can_be_chosen(run: Path, pixels: Tensor) -> None:
    with pytest.raises(UserError, match=r"has no best checkpoint.*take the last"):
        litlab.load(run, "best")
    last = litlab.load(run)(pixels)
    save(make_network(seed=5), run / "checkpoints" / "best.ckpt")
    assert torch.equal(litlab.load(run, "last")(pixels), last)
    assert torch.equal(litlab.load(run, "best")(pixels), litlab.load(run)(pixels))
    assert not torch.equal(litlab.load(run)(pixels), last)
    with pytest.raises(UserError, match="expected one of best, last"):
        litlab.load(run, "newest")


def test_a_run_without_checkpoint_is_refused_with_the_reason(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match="has not completed its first epoch"):
        litlab.load(run)
    (run / "result.json").write_text('{"status": "failed", "error": "out of memory"}')
    with pytest.raises(UserError, match="it failed: out of memory"):
        litlab.load(run)
    (run / "result.json").write_text('{"status": "interrupted", "error": "stopped by SIGINT"}')
    with pytest.raises(UserError, match="it was interrupted: stopped by SIGINT; to continue: litlab resume "):
        litlab.load(run)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.yaml", b"format: [", r"config\.yaml is damaged.*not valid YAML"),
        ("config.yaml", b"\xff\xfe", r"config\.yaml is damaged"),
        ("config.yaml", b"format: 1", "format is 1"),
        ("config.yaml", b"format: 2\ntrainer: 3", r"config\.yaml is damaged"),
        ("dataset.json", b'{"name": ', r"dataset\.json is damaged"),
        ("dataset.json", b'{"name": "x"}', r"dataset\.json is damaged"),
        ("dataset.json", b"[]", r"dataset\.json is damaged"),
        ("checkpoints/last.ckpt", b"not a zip", r"last\.ckpt is damaged, or not a checkpoint"),
    ],
)
def test_damaged_files_are_reported(run: Path, file: str, content: bytes, words: str) -> None:
    (run / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        litlab.load(run)


def test_transforms_that_the_config_lacks_are_reported(run: Path) -> None:
    file = run / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"transformed_from": [3, 40, 40]}))
    with pytest.raises(UserError, match=r"dataset\.json is damaged: it tells of transforms, but config\.yaml has none"):
        litlab.load(run)


def test_runs_that_hold_no_network_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        litlab.load(tmp_path / "nothing")
    (run / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"user_data\.Data, which does not describe"):
        litlab.load(run)
    loading = {"model": CNN_NODE, "data": None, "task": {"_target_": "user_task.Loading"}}
    (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | loading))
    sign(RunDirectory(run))
    with pytest.raises(UserError, match=r"the run was on user_task\.Loading, which does not describe"):
        litlab.load(run)
    (run / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match="no network of its own"):
        litlab.load(run)


def test_weights_of_another_network_are_refused(run: Path) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"model": CNN_NODE | {"hidden": [6]}}))
    with pytest.raises(UserError, match=r"not those of the network in config\.yaml(.|\n)*size mismatch"):
        litlab.load(run)


def test_a_network_of_the_users_own(tmp_path: Path, pixels: Tensor) -> None:
    node = {"_target_": "predictor_test_package.Net", "num_features": 4}
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    run = make_run(tmp_path / "project" / "run", network, node, make_info())
    sign(RunDirectory(run))
    with pytest.raises(UserError, match=r"no module 'predictor_test_package'(.|\n)*project folder is .*project"):
        litlab.load(run)
    source = """\
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_features, num_classes):
        super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(3 * num_features, num_classes))
"""
    (tmp_path / "project" / "predictor_test_package.py").write_text(source)
    predictor = litlab.load(run)
    assert torch.equal(predictor(pixels), network(predictor.preprocess(pixels[None])).softmax(dim=1))


def test_pretrained_weights_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the checkpoint has the weights")

    monkeypatch.setattr(torchvision, "_download", fetch)
    arguments = {"name": "squeezenet1_1", "pretrained": True}
    info = make_info(size=33)
    network = torchvision.build_untrained(**arguments, num_classes=3, image_shape=info.image_shape).eval()
    run = make_run(tmp_path / "run", network, {"_target_": "litlab.models.torchvision.build"} | arguments, info)
    images = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8)
    predictor = litlab.load(run)
    assert torch.equal(predictor(images), network(predictor.preprocess(images)).softmax(dim=1))


def test_importing_litlab_imports_no_torch() -> None:
    command = "import sys, litlab; litlab.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_evaluation_and_prediction_agree_with_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    kept = [setting for setting in SMALL if "model" not in setting and "watch" not in setting]
    network = ("model.widths=[2,4]", "model.hidden=[8]", "optimizer.lr=0.3")
    averages = ("callbacks=ema", "callbacks.ema.decay=0.8")
    switches = ("task.test_time_flip=true", "task.test_time_margin=0.0062", "task.channels_last=true")  # met by some
    run, config = new_run(tmp_path / "run", *kept, *averages, *network, *switches)
    sign(run)
    train_until(run, config, None)
    capsys.readouterr()
    evaluate.main([str(run.path), "--checkpoint", "best", "--json"])
    assert json.loads(capsys.readouterr().out)["metrics"] == read_result(run)["test"]
    predictor = litlab.load(run.path)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    left, right = (predictor.network(predictor.preprocess(batch)) for batch in (images, images.flip(3)))
    first, second = left.softmax(dim=1).topk(2, dim=1).values.unbind(1)
    logits = torch.where((first - second < 0.0062)[:, None], (left + right) / 2, left)
    torch.testing.assert_close(predictor(images), logits.softmax(dim=1))
    assert not torch.allclose(predictor(images), left.softmax(dim=1), rtol=1e-4)
    checkpoint = read_checkpoint(run.best)
    for name, value in predictor.network.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"network.{name}"])


@pytest.mark.integrations
@pytest.mark.parametrize("transforms", [False, True])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_files_are_predicted_as_in_the_test(
    resize: str, transforms: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "images", num_train=6, num_test=3)
    own = [f"data.root={tmp_path / 'images'}", "data.image_size=[20,28]", f"data.resize={resize}", "data.batch_size=9"]
    if transforms:
        crop = "{_target_: torchvision.transforms.v2.CenterCrop, size: [16, 18]}"
        invert = "{_target_: torchvision.transforms.v2.functional.invert, _partial_: true}"
        own += [f"data.transforms.train=[{crop}]", f"data.transforms.eval=[{crop}, {invert}]"]
    small = (
        "data.val_size=3",
        "model.widths=[2]",
        "model.hidden=[8]",
        "~logger",
        "~callbacks",
        "threads=1",
        "trainer.log_every_n_steps=1",
    )
    run, config = new_run(tmp_path / "run", "data=image_folder", *own, *small, "trainer=cpu", "trainer.max_epochs=1")
    train_until(run, config, None)
    if transforms:
        names = ("torchvision.transforms.v2.CenterCrop", "torchvision.transforms.v2.functional.invert")
        with pytest.raises(
            UserError, match=r"data\.transforms\.eval\.1\._target_: .*--allow torchvision.transforms.v2.f"
        ):
            litlab.load(run.path, allow=names[:1])
        assert litlab.load(run.path, allow=names).transforms
    sign(run)
    capsys.readouterr()
    for elsewhere in ([], ["--set", f"data.root={tmp_path / 'images' / 'test'}"]):  # where all images are test images
        evaluate.main([str(run.path), "--json", *elsewhere])
        assert json.loads(capsys.readouterr().out)["metrics"] == read_result(run)["test"]
    predictor = litlab.load(run.path)
    assert predictor.dataset_info.image_shape == ((3, 16, 18) if transforms else (3, 20, 28))
    data = build_data(config)
    (batch,) = data.test_dataloader()
    files = sorted((tmp_path / "images" / "test").rglob("*.*"))
    images = data.transform_batch(batch, epoch=None).images
    for prepared in (files, [PIL.Image.open(file) for file in files]):
        assert torch.equal(next(predictor._batches(prepared)), images)
        assert torch.equal(predictor(prepared), predictor.logits(images).softmax(dim=1))
    pixels = torch.randint(0, 256, (2, 3, 30, 50), dtype=torch.uint8)
    torch.testing.assert_close(predictor(pixels), predictor([as_image(image) for image in pixels]), atol=0.01, rtol=0)
    content = export.EXPORTERS["pt2"](predictor)
    exported = torch.export.load(io.BytesIO(content), extra_files=(extra := {"litlab.json": ""})).module()
    raw = torch.randint(0, 256, (9, *predictor.dataset_info.image_shape), dtype=torch.uint8)
    expected = predictor.logits(predictor.preprocess.normalize(raw)).softmax(dim=1)
    torch.testing.assert_close(exported(raw), expected, atol=1e-5, rtol=0)
    note = "to be applied before: CenterCrop(size=[16, 18]), invert" if transforms else None
    assert json.loads(extra["litlab.json"]).get("transforms") == note


def test_all_types_of_images_give_the_same(tmp_path: Path, pixels: Tensor, predictor: Predictor) -> None:
    as_image(pixels).save(tmp_path / "image.png")
    array = pixels.permute(1, 2, 0).numpy()
    in_memory = PIL.Image.open(io.BytesIO((tmp_path / "image.png").read_bytes()))
    files = [tmp_path / "image.png", str(tmp_path / "image.png"), in_memory]
    images = [pixels, pixels[None], array, as_image(pixels), *files]
    expected = predictor(pixels)
    for image in images:
        assert torch.equal(predictor(image), expected), type(image)
    torch.testing.assert_close(predictor(images), expected.expand(len(images), -1))
    assert predictor([]).shape == (0, 3)


def test_transparent_images_are_composed_on_white_and_gray_becomes_color(pixels: Tensor, predictor: Predictor) -> None:
    alpha = torch.arange(SIZE * SIZE, dtype=torch.uint8).view(1, SIZE, SIZE)
    white = PIL.Image.new("RGBA", (SIZE, SIZE), "white")
    cut_out = as_image(torch.cat([pixels, alpha]))
    expected = predictor(PIL.Image.alpha_composite(white, cut_out).convert("RGB"))
    for image in (torch.cat([pixels, alpha]), np.asarray(cut_out), cut_out):
        assert torch.equal(predictor(image), expected), type(image)
    assert torch.equal(predictor(torch.cat([pixels, torch.full_like(alpha, 255)])), predictor(pixels))
    gray = pixels[:1]
    expected = predictor(gray.expand(3, -1, -1))
    for image in (gray, torch.cat([gray, torch.full_like(alpha, 255)]), gray[0].numpy(), as_gray(gray)):
        assert torch.equal(predictor(image), expected)
    assert torch.equal(predictor(torch.cat([gray, alpha])), predictor(torch.cat([gray.expand(3, -1, -1), alpha])))


def as_gray(pixels: Tensor) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels[0].numpy())


def test_every_alpha_is_rounded_as_by_pillow() -> None:
    levels = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=2).astype(np.uint8)
    image = PIL.Image.fromarray(levels[:, :, [0, 0, 0, 1]])
    composed = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
    predictor = make_predictor(make_network(), make_info())
    assert np.array_equal(predictor.pixels(np.asarray(image))[0].permute(1, 2, 0), np.asarray(composed))


def test_16_bits_are_scaled_as_the_training_images_were(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 2**12, (SIZE, SIZE), dtype=np.uint16)
    PIL.Image.fromarray(gray).save(tmp_path / "scan.png")
    for bit_depth, divisor in ((12, 16), (None, 256)):
        predictor = make_predictor(make_network(), replace(make_info(), bit_depth=bit_depth))
        for image in (tmp_path / "scan.png", PIL.Image.open(tmp_path / "scan.png")):
            assert np.array_equal(predictor.pixels(image)[0, 0], gray // divisor)


def test_colors_become_gray_for_a_gray_network(pixels: Tensor) -> None:
    predictor = make_predictor(make_network(1), make_info(1))
    expected = torch.from_numpy(np.array(as_image(pixels).convert("L")))
    for image in (pixels, as_image(pixels), expected[None]):
        assert torch.equal(predictor.pixels(image)[0, 0], expected)


def test_other_sizes_are_resized(tmp_path: Path, predictor: Predictor) -> None:
    large = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    as_image(large).save(tmp_path / "image.png")
    resized = np.array(as_image(large).resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    for image in (as_image(large), tmp_path / "image.png"):
        assert np.array_equal(predictor.pixels(image)[0].numpy(), resized)
    torch.testing.assert_close(predictor(large), predictor(torch.from_numpy(resized)), atol=0.01, rtol=0)


def test_many_images_are_split_into_batches(predictor: Predictor) -> None:
    images = torch.randint(0, 256, (BATCH_SIZE + 2, 3, SIZE, SIZE), dtype=torch.uint8)
    sizes: list[int] = []
    predictor.network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    torch.testing.assert_close(predictor(images), predictor(list(images)))
    assert sizes == [BATCH_SIZE, 2] * 2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, SIZE, SIZE), "found torch.float32"),
        (torch.zeros(SIZE, SIZE, dtype=torch.uint8), "found torch.uint8 of shape"),
        (np.zeros((SIZE, SIZE, 3)), "found float64"),
        (torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8), f"has {SIZE} channels"),
        (3, "found a int"),
        ("nowhere.png", "nowhere.png can't be read: No such file"),
        (__file__, "test_predictor.py can't be read as a JPEG"),
    ],
)
def test_other_values_are_refused(image: Any, words: str, predictor: Predictor) -> None:
    with pytest.raises(UserError, match=words):
        predictor(image)
