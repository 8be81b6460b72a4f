"""Loading a run: against the network and the preprocessing it was made from, and all kinds of damage."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.saved_run import CLASS_NAMES, CNN_NODE, CONFIG, make_info, make_network, make_run, save
from torch import Tensor, nn

import litlab
from litlab.errors import UserError
from litlab.models import torchvision
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign


def test_probabilities_are_those_of_the_network_that_was_saved(run: Path, pixels: Tensor) -> None:
    predictor = litlab.load(run)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (predictor.dataset_info.mean, predictor.dataset_info.std)
    )
    expected = make_network()(((pixels / 255 - mean) / std)[None]).softmax(dim=1)
    torch.testing.assert_close(predictor(pixels), expected)
    assert not predictor.network.training
    assert not predictor(pixels).requires_grad
    assert predictor.class_names == CLASS_NAMES
    best = int(expected.argmax())
    assert predictor.predict(pixels) == [(CLASS_NAMES[best], pytest.approx(expected[0, best].item()))]


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
        ("config.yaml", b"format: 1", "format is 1"),
        ("config.yaml", b"format: 2\ntrainer: 3", r"config\.yaml is damaged"),
        ("dataset.json", b'{"name": ', r"dataset\.json is damaged"),
        ("dataset.json", b'{"name": "x"}', r"dataset\.json is damaged"),
        ("dataset.json", b"[]", r"dataset\.json is damaged"),
        ("checkpoints/last.ckpt", b"not a zip", r"last\.ckpt is damaged, or not a checkpoint"),
    ],
)
def test_damage_is_named(run: Path, file: str, content: bytes, words: str) -> None:
    (run / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        litlab.load(run)


def test_runs_that_hold_no_network_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        litlab.load(tmp_path / "nothing")
    (run / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"user_data\.Data, which does not describe"):
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


def test_loading_leaves_the_callers_random_numbers_alone(run: Path) -> None:
    before = torch.get_rng_state()
    litlab.load(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_litlab_imports_no_torch() -> None:
    command = "import sys, litlab; litlab.load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "False\n"
