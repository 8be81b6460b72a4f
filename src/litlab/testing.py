"""Suites for pytest over the configs, networks and data sets of a project.

A test class derives from a suite and names the folder of the project; each test runs for each config of the group::

    class TestNetworks(NetworkSuite):
        project = Path(__file__).parents[1]
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from copy import deepcopy
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import LightningDataModule, seed_everything
from omegaconf import open_dict
from torch import Tensor, nn

from litlab.config.compose import register_project_resolvers, register_resolvers
from litlab.config.freeze import freeze
from litlab.config.paths import ROOT, VERSION_BASE, add_project_to_path, packaged_conf
from litlab.config.targets import foreign_problems
from litlab.config.tree import Config
from litlab.data.dataset_info import DatasetInfo
from litlab.data.loader import Batch
from litlab.data.module import ImageDataModule
from litlab.training.build import DataDependentInit, Experiment, Facts, assemble, build_data, build_network

_MAX_BATCHES = 50  # of each split, that a test reads
MakeData = Callable[[int], LightningDataModule]
MakeNetwork = Callable[[], nn.Module]


def compose_config(*overrides: str, project: Path | None = None) -> Config:
    """Compose, validate and freeze a config as `litlab train` does, without starting a run.

    Args:
        *overrides: As on the command line, such as `model=convnet` and `model.width=4`.
        project: Folder of the project; by default the current one.

    Raises:
        UserError: If litlab refuses the config.
        HydraException: If there is no such config or key.
    """
    register_resolvers()
    with chdir(project or Path.cwd()):
        register_project_resolvers(Path.cwd())
        with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
            loader = GlobalHydra.instance().config_loader()
            composed = loader.load_configuration(ROOT, list(overrides), RunMode.RUN)
            HydraConfig.instance().set_config(composed)
            with open_dict(composed):
                del composed["hydra"]
            return freeze(composed)


@cache
def _composed(overrides: tuple[str, ...], project: Path) -> Config:
    """Compose as `compose_config` does, once; the caller must not change the result."""
    add_project_to_path(project)
    return compose_config(*overrides, project=project)


def build_experiment(*overrides: str, project: Path | None = None) -> Experiment:
    """Build data module, network and task of a config, seeded, as a run does it.

    Args:
        *overrides: As on the command line.
        project: Folder of the project; by default the current one.

    Raises:
        UserError: If litlab refuses the config, or the data are not there.
    """
    config = _composed(overrides, project or Path.cwd())
    return assemble(deepcopy(config), rank=0)


def describe_images(num_classes: int, image_shape: tuple[int, int, int]) -> Facts:
    """Return made-up facts on a data set, for networks that are built without one."""
    class_names, half = tuple(f"class {number}" for number in range(num_classes)), (0.5,) * image_shape[0]
    return Facts(DatasetInfo("none", class_names, image_shape, half, half, "", "", 80, 20, 20))


class _Suite:
    """Tests that run for each config of a group.

    Attributes:
        project: Folder of the project, which holds its `conf/`.
        group: Folder in `conf/`.
        overrides: Name of a config -> overrides that it is tested with: values that have no default, smaller sizes.
    """

    project: ClassVar[Path]
    group: ClassVar[str]
    overrides: ClassVar[Mapping[str, Sequence[str]]] = {}

    @classmethod
    def names(cls) -> Sequence[Any]:
        """Return the names of the configs to test; those of `pytest.param` may have marks."""
        return sorted(path.stem for path in (cls.project / "conf" / cls.group).glob("*.yaml"))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test once for each config."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.names())

    def _compose(self, name: str, *overrides: str) -> Config:
        return _composed((f"{self.group}={name}", *self.overrides.get(name, ()), *overrides), self.project)


class ConfigSuite(_Suite):
    """Each file `conf/GROUP/NAME.yaml` composes, has valid values, and names classes that take its arguments.

    Names in `overrides` are written as on the command line: `data=flowers`.
    """

    @classmethod
    def names(cls) -> Sequence[Any]:
        """Return all choices of all groups, but those of Hydra's own."""
        paths = sorted((cls.project / "conf").glob("*/*.yaml"))
        return [f"{path.parent.name}={path.stem}" for path in paths if path.parent.name != "hydra"]

    def test_config_is_valid(self, name: str) -> None:
        """Compose the defaults with this choice."""
        more = ["study.ablation=[]"] * name.startswith("study=")  # as in a job of the full recipe
        config = _composed((name, *self.overrides.get(name, ()), *more), self.project)
        (problems,) = foreign_problems([config], separate=False)
        assert not problems, "\n".join(problems)


class NetworkSuite(_Suite):
    """Networks of image classifiers.

    Attributes:
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images.
        learning_rate: Learning rate of Adam in the test that the network learns a batch.
        num_steps: Its largest number of steps.
    """

    group = "model"
    num_classes: ClassVar[int] = 5
    image_shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    learning_rate: ClassVar[float] = 3e-3
    num_steps: ClassVar[int] = 100

    @pytest.fixture
    def make_network(self, name: str) -> MakeNetwork:
        """Return a function that builds the network, with equal weights each time."""
        node = self._compose(name)["model"]

        def make() -> nn.Module:
            seed_everything(0, verbose=False)
            network = build_network(deepcopy(node), describe_images(self.num_classes, self.image_shape))
            if isinstance(network, DataDependentInit):
                network.initialize_from(self.images(64))
            return network

        return make

    def images(self, num_images: int) -> Tensor:
        """Return images of noise, normalized."""
        return torch.randn(num_images, *self.image_shape, generator=torch.Generator().manual_seed(0))

    def test_one_logit_for_each_class(self, make_network: MakeNetwork) -> None:
        """Check the shape of the output, and that it is finite."""
        logits = make_network()(self.images(4))
        assert logits.shape == (4, self.num_classes), f"expected 4 x {self.num_classes} logits, found {logits.shape}"
        assert logits.isfinite().all(), "logits are not finite"

    def test_gradients_reach_all_trained_parameters(self, make_network: MakeNetwork) -> None:
        """Check that no parameter is left out of the loss; fix what is not to be trained by `requires_grad_(False)`."""
        network = make_network()
        nn.functional.cross_entropy(network(self.images(8)), torch.arange(8) % self.num_classes).backward()  # type: ignore[no-untyped-call]
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        without = [name for name, value in trained.items() if value.grad is None or not value.grad.abs().sum() > 0]
        assert not without, f"no gradient reaches {', '.join(without)}"

    def test_evaluation_is_deterministic(self, make_network: MakeNetwork) -> None:
        """Check that logits in evaluation mode depend on the image alone, and on no other image of the batch."""
        network, images = make_network().eval(), self.images(6)
        with torch.no_grad():
            logits = network(images)
            assert torch.equal(network(images), logits), "two evaluations of the same images differ"
            torch.testing.assert_close(network(images[2:4]), logits[2:4], rtol=1e-4, atol=1e-5)

    def test_weights_are_saved_and_loaded(self, make_network: MakeNetwork) -> None:
        """Check that the state dict holds plain tensors, and all that the logits depend on."""
        network, other = make_network().eval(), make_network().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.05)
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        with torch.no_grad():
            assert torch.equal(network(self.images(2)), other(self.images(2))), "the loaded weights give other logits"

    def test_a_batch_is_learned(self, make_network: MakeNetwork) -> None:
        """Check that a few steps of Adam on one batch halve the loss."""
        network, images, labels = make_network(), self.images(8), torch.arange(8) % self.num_classes
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, self.learning_rate)
        losses: list[float] = []
        while len(losses) <= self.num_steps and (not losses or losses[-1] > losses[0] / 2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        first, last = losses[0], losses[-1]
        assert last <= first / 2, f"the loss of one batch fell from {first:.3g} to {last:.3g} in {self.num_steps} steps"


class DataSuite(_Suite):
    """Data sets of images with labels: subclasses of litlab's `ImageDataModule`, and others that yield such pairs."""

    group = "data"

    @pytest.fixture
    def make_data(self, name: str) -> MakeData:
        """Return a function that prepares and sets up the data module for a seed."""

        def make(seed: int) -> LightningDataModule:
            config = self._compose(name, f"seed={seed}")
            seed_everything(seed, verbose=False)
            data = build_data(deepcopy(config))
            if not isinstance(data, ImageDataModule):
                data.prepare_data()
                data.setup("fit")
                data.setup("test")
            return data

        return make

    def test_images_and_labels(self, make_data: MakeData) -> None:
        """Check the shapes, types and ranges of each split."""
        data = make_data(0)
        num_classes = Facts(getattr(data, "info", data)).get("num_classes")
        for split in ("train", "val", "test"):
            for images, labels in map(_images_and_labels, _batches(data, split)):
                assert images.ndim == 4, f"{split}: expected images of shape b c h w, found {tuple(images.shape)}"
                assert labels.shape == images.shape[:1], f"{split}: expected a label for each image"
                assert labels.dtype == torch.int64, f"{split}: expected labels of int64, found {labels.dtype}"
                assert images.isfinite().all(), f"{split}: images are not finite"
                low, high = labels.min().item(), labels.max().item()
                is_in_range = low >= 0 and (num_classes is None or high < num_classes)
                assert is_in_range, f"{split}: labels from {low} to {high}, expected {num_classes} classes from 0"

    def test_splits_are_disjoint(self, make_data: MakeData) -> None:
        """Check that no image is in two splits."""
        data, seen = make_data(0), dict[bytes, str]()
        for split in ("train", "val", "test"):
            contents = {image.numpy().tobytes() for batch in _batches(data, split) for image in _images(batch)}
            shared = [seen[content] for content in contents if content in seen]
            assert not shared, f"{len(shared)} images of {split} are in {', '.join(sorted(set(shared)))}, too"
            seen |= dict.fromkeys(contents, split)

    def test_same_seed_same_batches(self, make_data: MakeData) -> None:
        """Check that the training batches, augmentation included, are a function of the seed."""
        first, again = (_training_tensors(make_data(0)) for _ in range(2))
        assert len(first) == len(again), "two epochs of the same seed have different numbers of batches"
        assert all(map(torch.equal, first, again)), "two epochs of the same seed differ"

    def test_resumes_at_a_position(self, make_data: MakeData) -> None:
        """Check that a loader that can seek continues an epoch with the batches that were left."""
        loader = make_data(0).train_dataloader()
        if not hasattr(loader, "seek"):
            pytest.skip("the loader has no position; litlab reads it again up to where a run is resumed")
        whole = [_tensors(batch) for batch in loader]
        position = len(whole) // 2
        loader.seek(position)
        rest = [_tensors(batch) for batch in loader]
        assert len(rest) == len(whole) - position, f"{len(rest)} batches are left of {len(whole)} at {position}"
        pairs = zip(whole[position:], rest, strict=True)
        assert all(all(map(torch.equal, *pair)) for pair in pairs), "the batches after seeking are others"


def _batches(data: LightningDataModule, split: str) -> Iterator[Any]:
    """Yield the first batches of a split, as its loader gives them; none if there is no such split."""
    loader = getattr(data, f"{split}_dataloader")()
    yield from islice(loader, _MAX_BATCHES)


def _images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Batch):
        return batch.images, batch.labels
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        pytest.skip(f"the data module yields no pairs of images and labels, but {type(batch).__name__}")
    images, labels = batch
    return images, labels


def _images(batch: Any) -> Tensor:
    return _images_and_labels(batch)[0]


def _tensors(value: Any) -> list[Tensor]:
    """Return all tensors in a batch, in their order."""
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for item in values for tensor in _tensors(item)]


def _training_tensors(data: LightningDataModule) -> list[Tensor]:
    """Return the tensors of the first training batches, augmented as in a training if litlab does that."""
    seed_everything(0, verbose=False)  # a loader may draw its order from the global random state
    batches = list(_batches(data, "train"))
    if isinstance(data, ImageDataModule):
        batches = [data.transform_batch(batch, epoch=1) for batch in batches]
    return _tensors(batches)
