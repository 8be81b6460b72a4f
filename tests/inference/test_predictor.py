"""Loading a run: against the network and the preprocessing it was made from, for all kinds of images and of damage."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from torch import Tensor, nn

import litlab
from litlab.data.facts import DatasetFacts
from litlab.data.preprocess import Preprocess
from litlab.errors import UserError
from litlab.inference.predictor import BATCH_SIZE, Predictor
from litlab.models import torchvision
from litlab.models.cnn import CNN

SIZE = 20
CLASS_NAMES = ("cat", "dog", "eel")
CNN_NODE = {"_target_": "litlab.models.cnn.CNN", "widths": [3, 4], "hidden": [5]}
CONFIG = """
format: 1
name: test
seed: 0
threads: 1
objective: null
checkpoint: {every_steps: null}
study: {name: null}
data: {_target_: user_data.Data}
model: null
task: {_target_: litlab.task.ImageClassifier, label_smoothing: 0.0}
optimizer: null
schedule: null
callbacks: null
logger: {remote: {_target_: user_logger.Logger, token: "${oc.env:A_VARIABLE_THAT_IS_NOT_SET}"}}
trainer: {_target_: user_trainer.Trainer, devices: 1}
"""


def make_facts(channels: int = 3, size: int = SIZE) -> DatasetFacts:
    return DatasetFacts(
        name="animals",
        class_names=CLASS_NAMES,
        image_shape=(channels, size, size),
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.4)[:channels],
        statistics_source="the test",
        fingerprint="0",
        num_train=1,
        num_val=1,
        num_test=1,
    )


def make_network(channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return CNN(num_classes=3, image_shape=(channels, SIZE, SIZE), widths=(3, 4), hidden=(5,)).eval()


def make_run(path: Path, network: nn.Module, node: dict[str, Any], facts: DatasetFacts) -> Path:
    """A run directory with what `load` reads; `network` is its last checkpoint."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"model": node}))
    (path / "dataset.json").write_text(json.dumps(facts.to_dict()))
    (path / "provenance.json").write_text(json.dumps({"project": str(path.parent)}))
    save(network, path / "checkpoints" / "last.ckpt")
    return path


def save(network: nn.Module, path: Path) -> None:
    torch.save({"state_dict": {f"network.{key}": value for key, value in network.state_dict().items()}}, path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_network(), CNN_NODE, make_facts())


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def as_image(pixels: Tensor) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy())


def make_predictor(channels: int = 3) -> Predictor:
    facts = make_facts(channels)
    preprocess = Preprocess(image_size=(SIZE, SIZE), mean=facts.mean, std=facts.std)
    return Predictor(network=make_network(channels), preprocess=preprocess, facts=facts)


def test_probabilities_are_those_of_the_network_that_was_saved(run: Path, pixels: Tensor) -> None:
    predictor = litlab.load(run)
    mean, std = (torch.tensor(values)[:, None, None] for values in (predictor.facts.mean, predictor.facts.std))
    expected = make_network()(((pixels / 255 - mean) / std)[None]).softmax(dim=1)
    torch.testing.assert_close(predictor(pixels), expected)
    assert not predictor.network.training
    assert not predictor(pixels).requires_grad
    assert predictor.class_names == CLASS_NAMES
    best = int(expected.argmax())
    assert predictor.predict(pixels) == [(CLASS_NAMES[best], pytest.approx(expected[0, best].item()))]


def test_all_kinds_of_images_give_the_same(tmp_path: Path, pixels: Tensor) -> None:
    predictor = make_predictor()
    as_image(pixels).save(tmp_path / "image.png")
    array = pixels.permute(1, 2, 0).numpy()
    kinds = [pixels, pixels[None], array, as_image(pixels), tmp_path / "image.png", str(tmp_path / "image.png")]
    expected = predictor(pixels)
    for kind in kinds:
        assert torch.equal(predictor(kind), expected), type(kind)
    torch.testing.assert_close(predictor(kinds), expected.expand(len(kinds), -1))
    assert predictor([]).shape == (0, 3)


def test_alpha_is_dropped_and_grey_becomes_colour(pixels: Tensor) -> None:
    predictor = make_predictor()
    alpha = torch.full((1, SIZE, SIZE), 7, dtype=torch.uint8)
    assert torch.equal(predictor(torch.cat([pixels, alpha])), predictor(pixels))
    assert torch.equal(predictor(as_image(torch.cat([pixels, alpha]))), predictor(pixels))
    grey = pixels[:1]
    expected = predictor(grey.expand(3, -1, -1))
    for kind in (grey, torch.cat([grey, alpha]), grey[0].numpy(), PIL.Image.fromarray(grey[0].numpy())):
        assert torch.equal(predictor(kind), expected)


def test_colours_become_grey_for_a_grey_network(pixels: Tensor) -> None:
    predictor = make_predictor(channels=1)
    expected = torch.from_numpy(np.array(as_image(pixels).convert("L")))
    for kind in (pixels, as_image(pixels), expected[None]):
        assert torch.equal(predictor.pixels(kind)[0, 0], expected)


def test_other_sizes_are_resized(tmp_path: Path) -> None:
    predictor = make_predictor()
    large = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    as_image(large).save(tmp_path / "image.png")
    resized = np.array(as_image(large).resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    for kind in (as_image(large), tmp_path / "image.png"):
        assert np.array_equal(predictor.pixels(kind)[0].numpy(), resized)
    torch.testing.assert_close(predictor(large), predictor(torch.from_numpy(resized)), atol=0.01, rtol=0)


def test_many_images_are_split_into_batches() -> None:
    predictor = make_predictor()
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
def test_what_is_no_image_is_named(image: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_predictor()(image)


def test_best_is_preferred_and_either_can_be_asked_for(run: Path, pixels: Tensor) -> None:
    with pytest.raises(UserError, match=r"has no best checkpoint.*take the last"):
        litlab.load(run, "best")
    last = litlab.load(run)(pixels)
    save(make_network(seed=5), run / "checkpoints" / "best.ckpt")
    assert torch.equal(litlab.load(run, "last")(pixels), last)
    assert torch.equal(litlab.load(run, "best")(pixels), litlab.load(run)(pixels))
    assert not torch.equal(litlab.load(run)(pixels), last)
    with pytest.raises(UserError, match="expected one of best, last"):
        litlab.load(run, "newest")


def test_a_run_without_checkpoint_says_how_far_it_came(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match="has not completed its first epoch"):
        litlab.load(run)
    (run / "result.json").write_text('{"status": "failed", "error": "out of memory"}')
    with pytest.raises(UserError, match="it failed: out of memory"):
        litlab.load(run)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.yaml", b"format: [", r"config\.yaml is damaged.*not valid YAML"),
        ("config.yaml", b"\xff\xfe", r"config\.yaml is damaged"),
        ("config.yaml", b"format: 2", "format is 2"),
        ("config.yaml", b"format: 1\ntrainer: 3", r"config\.yaml is damaged"),
        ("dataset.json", b'{"name": ', r"dataset\.json is damaged"),
        ("dataset.json", b'{"name": "x"}', r"dataset\.json is damaged"),
        ("dataset.json", b"[]", r"dataset\.json is damaged"),
        ("checkpoints/last.ckpt", b"not a zip", r"last\.ckpt: not a checkpoint"),
    ],
)
def test_damage_is_named(run: Path, file: str, content: bytes, words: str) -> None:
    (run / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        litlab.load(run)


def test_a_checkpoint_with_code_is_refused(run: Path) -> None:
    torch.save({"state_dict": {}, "path": Path("x")}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="read safely"):
        litlab.load(run)


def test_runs_that_hold_no_network_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        litlab.load(tmp_path / "nothing")
    (run / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"user_data\.Data, which tells nothing"):
        litlab.load(run)
    (run / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match="no network of its own"):
        litlab.load(run)


def test_changed_code_is_suspected(run: Path) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"model": CNN_NODE | {"hidden": [6]}}))
    with pytest.raises(UserError, match=r"not those of the network in config\.yaml(.|\n)*size mismatch"):
        litlab.load(run)


def test_a_network_of_the_users_own(tmp_path: Path, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    node = {"_target_": "predictor_test_package.Net", "num_features": 4}
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    run = make_run(tmp_path / "project" / "run", network, node, make_facts())
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

    monkeypatch.setattr(torchvision, "_fetch", fetch)
    arguments = {"name": "squeezenet1_1", "pretrained": True}
    facts = make_facts(size=33)
    network = torchvision.build_untrained(**arguments, num_classes=3, image_shape=facts.image_shape).eval()
    run = make_run(tmp_path / "run", network, {"_target_": "litlab.models.torchvision.build"} | arguments, facts)
    images = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8)
    predictor = litlab.load(run)
    assert torch.equal(predictor(images), network(predictor.preprocess(images)).softmax(dim=1))


def test_loading_leaves_the_callers_random_numbers_alone(run: Path) -> None:
    before = torch.get_rng_state()
    litlab.load(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_litlab_imports_no_torch() -> None:
    command = "import sys, litlab; litlab.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_images_in_memory_need_no_file(pixels: Tensor) -> None:
    file = io.BytesIO()
    as_image(pixels).save(file, "png")
    predictor = make_predictor()
    assert torch.equal(predictor(PIL.Image.open(file)), predictor(pixels))
