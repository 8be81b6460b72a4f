"""The contenders of the benchmarks do the same work as litlab: same images, same weights."""

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.runs import train_here
from torch import Tensor, nn

from benchmarks import data_path, gpu, ideal, in_memory, jpegs, settings, streaming, usual, usual_lightning
from benchmarks.bare import BareLoop
from benchmarks.bare_trainer import BareTrainer
from benchmarks.runs import compose_config
from litlab.config.config_file import from_yaml
from litlab.data.module import ImageDataModule
from litlab.training.build import Facts, assemble, build_data, build_network
from litlab.training.checkpoint_io import read_network_weights

QUICK = settings.quick()


@pytest.fixture(scope="module")
def jpeg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jpegs.in_folder(QUICK, tmp_path_factory.mktemp("jpegs"))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    in_memory.save(data_path.prepared(*QUICK.multirun_data), folder, num_val=30)
    return folder


def network_and_data(*overrides: str) -> tuple[nn.Module, ImageDataModule, dict[str, object]]:
    config = compose_config(*QUICK.data, "data.batch_size=48", "trainer=cpu", "trainer.max_epochs=1", *overrides)
    data = build_data(config)
    assert isinstance(data, ImageDataModule)
    return build_network(config["model"], Facts(data.info)), data, config


def in_one_order(images: Tensor, labels: Tensor) -> Tensor:
    """Sort rows of label and pixels by their contents."""
    rows = torch.cat([labels[:, None].float(), images.flatten(1)], dim=1)
    return rows[torch.argsort((rows * torch.linspace(1, 2, rows.shape[1])).double().sum(dim=1))]


# ---- images


def test_both_data_paths_yield_every_image_once() -> None:
    data = data_path.prepared(*QUICK.data, "data.batch_size=16", "data.crop_padding=0", "data.flip=false")
    contender = data_path.usual_loader(data_path.PILImages(data), 16, num_workers=0)
    contender.dataset.transform.transforms[1].p = 0.0  # no flip, like litlab here

    rows = [
        in_one_order(*map(torch.cat, zip(*batches, strict=True))) for batches in (data_path.Epochs(data), contender)
    ]

    assert len(rows[0]) == 160
    torch.testing.assert_close(*rows, rtol=0, atol=1e-5)


def test_each_iteration_of_epochs_is_another_epoch() -> None:
    epochs = data_path.Epochs(data_path.prepared(*QUICK.data, "data.batch_size=160"))
    (first, _), (second, _) = next(iter(epochs)), next(iter(epochs))
    assert first.shape == (160, 3, 32, 32)
    assert not torch.equal(first, second)


def test_both_streams_yield_every_image_once(jpeg_folder: Path, tmp_path: Path) -> None:
    plain = ("data.crop_padding=0", "data.flip=false")
    data = data_path.prepared(*streaming.overrides(jpeg_folder, tmp_path, 16, 0), *plain)
    contender = streaming.usual(data, jpeg_folder, 16, 0)
    contender.dataset.transform.transforms[1].p = 0.0

    sums = [
        torch.cat([images.flatten(1).sum(1) for images, _ in batches]).sort().values
        for batches in (data_path.Epochs(data), contender)
    ]

    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-3)


def test_images_are_taken_from_a_folder_or_an_archive(jpeg_folder: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", jpeg_folder.parent, jpeg_folder.name)

    assert len(list(jpeg_folder.glob("train/*/*.jpg"))) == 60
    assert jpegs.in_folder(replace(QUICK, root=str(jpeg_folder)), tmp_path / "unused") == jpeg_folder
    unpacked = jpegs.in_folder(replace(QUICK, root=archive), tmp_path / "empty")
    assert len(list(unpacked.glob("test/*/*.jpg"))) == 20


def test_the_multirun_contenders_get_the_images_of_litlab(arrays: Path) -> None:
    data = data_path.prepared(*QUICK.multirun_data, "data.crop_padding=0", "data.flip=false", "data.batch_size=640")
    (images, labels), (mean, std) = in_memory.load(arrays, "train"), in_memory.statistics(arrays)

    expected = in_one_order(*next(iter(data_path.Epochs(data))))

    torch.testing.assert_close(in_one_order((images.float() - mean) / std, labels), expected, rtol=0, atol=1e-5)
    assert [len(in_memory.load(arrays, split)[1]) for split in ("val", "test")] == [30, 40]


def test_usual_lightning_sees_the_images_of_litlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual_lightning, "NUM_WORKERS", 0)
    data = data_path.prepared(*QUICK.data, "data.batch_size=40")
    in_memory.save(data, tmp_path, num_val=len(data.val_indices))

    images, _ = next(iter(usual_lightning.ImagesByWorkers(tmp_path, 40).val_dataloader()))
    (batch,) = data.val_dataloader()

    torch.testing.assert_close(images, data.transform_batch(batch, epoch=None).images, rtol=0, atol=1e-5)


# ---- training


def test_the_loop_by_hand_ends_with_the_weights_of_litlab(tmp_path: Path) -> None:
    options = ("data.batch_size=48", "trainer.log_every_n_steps=2", "trainer=cpu", "trainer.max_epochs=2")
    run = train_here(tmp_path / "run", *QUICK.data, *options)
    config = from_yaml(run.config.read_text())
    experiment = assemble(config, rank=0)
    assert isinstance(experiment.data, ImageDataModule)
    assert experiment.network is not None

    by_hand = BareLoop(experiment.network, experiment.data, config)
    for epoch in range(2):
        by_hand.train(epoch)

    trained = read_network_weights(run.last)
    for name, weights in by_hand.network.state_dict().items():
        torch.testing.assert_close(weights, trained[name], rtol=1e-5, atol=1e-6)


def test_the_bare_trainer_ends_with_the_weights_of_the_loop_by_hand() -> None:
    network, data, config = network_and_data()
    by_hand, by_trainer = (make(deepcopy(network), data, config) for make in (BareLoop, BareTrainer))

    assert min(by_hand.train(0), by_trainer.train(0)) > 0

    trained = by_trainer.module.network.state_dict()
    for name, weights in by_hand.network.state_dict().items():
        torch.testing.assert_close(weights, trained[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(weights, network.state_dict()[name])


def test_the_fast_loop_of_a_gpu_is_the_loop_by_hand_in_less_precision() -> None:
    network, data, config = network_and_data("model=resnet18", "model.width=4")
    plain, fast = BareLoop(deepcopy(network), data, config), gpu.FastLoop(deepcopy(network), data, config)
    batch = next(iter(plain.loader))

    losses = plain.loss(batch, 0), fast.loss(batch, 0)

    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)
    assert not torch.equal(*losses)


def test_the_ideal_loop_learns(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ideal, "BATCH_SIZE", 16)
    assert ideal.Loop(arrays).run(lr=0.05, seed=0, epochs=5) > 0.2  # of ten classes


@pytest.mark.filterwarnings("ignore")  # Lightning's default warnings are part of the usual set-up
@pytest.mark.parametrize("name", ["usual", "usual_lightning"])
def test_the_usual_set_ups_train_and_test(
    name: str, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usual_lightning, "NUM_WORKERS", 0)
    if name == "usual":
        accuracy = usual.train(usual.Config(data=str(arrays), epochs=1, threads=torch.get_num_threads()), tmp_path)
    else:
        accuracy = usual_lightning.main(arrays, 1, 16, tmp_path)["accuracy"]
    assert 0 <= accuracy <= 1
    assert list(tmp_path.rglob("*.ckpt"))
