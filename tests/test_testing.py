"""The suites of `litlab.testing`: a project that is right passes, and each kind of mistake fails the test it is for."""

import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

DATA = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from litlab.data.arrays import ImageArrays
from litlab.data.module import ImageDataModule


def noise(num_images, seed):
    pixels = torch.rand(num_images, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (255 * pixels).byte(), torch.arange(num_images) % 2


class Leaky(ImageDataModule):
    def __init__(self, *, leak, unseeded, **settings):
        super().__init__(**settings)
        self.leak, self.unseeded = leak, unseeded

    def load_images(self):
        (images, labels), (test_images, test_labels) = noise(40, 0), noise(20, 0 if self.leak else 1)
        if self.unseeded:
            images = torch.randint(256, images.shape, generator=torch.Generator().manual_seed(torch.seed())).byte()
        return ImageArrays.from_tensors(
            name="leaky", class_names=["a", "b"], train_images=images, train_labels=labels,
            test_images=test_images, test_labels=test_labels,
        )


class Pairs(LightningDataModule):
    num_classes = 2

    def __init__(self, label=0):
        super().__init__()
        self.label = label

    def loader(self, seed, shuffle=False):
        images, labels = noise(20, seed)
        return DataLoader(TensorDataset(images / 255, labels + self.label), batch_size=8, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(0, shuffle=True)

    def val_dataloader(self):
        return self.loader(1)

    def test_dataloader(self):
        return self.loader(2)
"""
NETWORKS = """
import torch
from torch import nn


class Good(nn.Sequential):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))


class Unused(Good):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(num_classes=num_classes, image_shape=image_shape)
        self.unused = nn.Parameter(torch.zeros(3))


class Fixed(Unused):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(num_classes=num_classes, image_shape=image_shape)
        self.unused.requires_grad_(False)


class Noisy(Good):
    def forward(self, images):
        return super().forward(images + 0.01 * torch.randn_like(images))


class Batchy(Good):
    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


class Forgetful(Good):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(num_classes=num_classes, image_shape=image_shape)
        self.scale = 1.0

    def _load_from_state_dict(self, *args):
        self.scale = 2.0

    def forward(self, images):
        return self.scale * super().forward(images)


class Frozen(Good):
    def forward(self, images):
        return super().forward(images) * 1e-6
"""
DATA_SETS = {"leaky": "defaults: [base/images]\n_target_: {}_data.Leaky\nleak: false\nunseeded: false\nval_size: 10\n"
             "crop_padding: 2\nbatch_size: 8\n", "pairs": "_target_: {}_data.Pairs\n"}  # fmt: skip
SUITES = """
from pathlib import Path

from litlab.testing import ConfigSuite, DataSuite, NetworkSuite


class TestConfigs(ConfigSuite):
    project = Path(__file__).parent


class TestNetworks(NetworkSuite):
    project = Path(__file__).parent
    image_shape = (1, 8, 8)


class TestDataSets(DataSuite):
    project = Path(__file__).parent
    overrides = {}
"""


@pytest.fixture
def project(pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a project whose modules have names of their own, since they stay imported."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, name = pytester.path, request.node.name
    files = {f"src/{name}_data.py": DATA, f"src/{name}_nets.py": NETWORKS, "test_suites.py": SUITES}
    files |= {f"conf/data/{key}.yaml": text.format(name) for key, text in DATA_SETS.items()}
    files["conf/model/good.yaml"] = f"_target_: {name}_nets.Good\n"
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def run(pytester: pytest.Pytester) -> pytest.HookRecorder:
    """Run the suites in this process."""
    return pytester.inline_run("-p", "no:cacheprovider", "--tb=no", "--import-mode=importlib")


@pytest.mark.integrations
def test_a_project_that_is_right_passes(project: Path, pytester: pytest.Pytester) -> None:
    run(pytester).assertoutcome(passed=3 + 5 + 7, skipped=1)  # pairs have no position


@pytest.mark.integrations
def test_each_mistake_fails_its_test(project: Path, pytester: pytest.Pytester) -> None:
    (module,), conf = project.glob("src/*_nets.py"), project / "conf"
    for name in ("Unused", "Fixed", "Noisy", "Batchy", "Forgetful", "Frozen"):
        (conf / f"model/{name.lower()}.yaml").write_text(f"_target_: {module.stem}.{name}\n")
    (conf / "model/ten.yaml").write_text(f"_target_: {module.stem}.Good\nnum_classes: 10\n")
    leaky, pairs = ((conf / f"data/{name}.yaml").read_text() for name in ("leaky", "pairs"))
    (conf / "data/leak.yaml").write_text(leaky.replace("leak: false", "leak: true"))
    (conf / "data/unseeded.yaml").write_text(leaky.replace("unseeded: false", "unseeded: true"))
    (conf / "data/labels.yaml").write_text(f"{pairs}label: 1\n")
    (conf / "task").mkdir()
    (conf / "task/lost.yaml").write_text("_target_: litlab.tasks.image_classifier.ImageClasifier\n")
    (conf / "optimizer").mkdir()
    (conf / "optimizer/more.yaml").write_text("_target_: torch.optim.Adam\nlr: 0.1\nmomentun: 0.9\n")
    (conf / "experiment").mkdir()
    for name, change in (("right", "max_epochs: 3"), ("typo", "max_epoch: 3"), ("range", "max_epochs: -3")):
        header = "# @package _global_\ndefaults:\n  - override /model: good\n"
        (conf / f"experiment/{name}.yaml").write_text(f"{header}trainer:\n  {change}\n")
    reports = run(pytester).getreports("pytest_runtest_logreport")
    failed = [report.nodeid.rpartition("::")[2].rstrip("]").partition("[") for report in reports if report.failed]
    assert {(test, config) for test, _, config in failed} == {
        ("test_config_is_valid", "task=lost"),
        ("test_config_is_valid", "optimizer=more"),
        ("test_config_is_valid", "experiment=typo"),
        ("test_config_is_valid", "experiment=range"),
        ("test_gradients_reach_all_trained_parameters", "unused"),
        ("test_evaluation_is_deterministic", "noisy"),
        ("test_evaluation_is_deterministic", "batchy"),
        ("test_weights_are_saved_and_loaded", "noisy"),
        ("test_weights_are_saved_and_loaded", "forgetful"),
        ("test_a_batch_is_learned", "frozen"),
        ("test_one_logit_for_each_class", "ten"),
        ("test_splits_are_disjoint", "leak"),
        ("test_same_seed_same_batches", "unseeded"),
        ("test_images_and_labels", "labels"),
    }
