"""The rows about speed, on next to nothing, in this process: files, the usual set-up, time to an accuracy, a GPU."""

import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.runs import train_here
from torch import nn

from benchmarks import (
    __main__,
    data_path,
    gpu,
    in_memory,
    jpegs,
    recipes,
    settings,
    streaming,
    time_to_accuracy,
    tutorial,
    usual_lightning,
)
from benchmarks.bare import BareLoop
from benchmarks.bare_trainer import BareTrainer
from benchmarks.recipes import Outcome
from benchmarks.runs import compose_config
from litlab.data.module import ImageDataModule
from litlab.runs.result import read_result
from litlab.training.build import build_data, build_network

QUICK = settings.quick()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of a process that is not alone on its cores wait for each other."""
    with data_path.threads(1):
        yield


def _network_and_data(*overrides: str) -> tuple[nn.Module, ImageDataModule, dict[str, object]]:
    config = compose_config(*QUICK.data, "data.batch_size=48", "trainer=cpu", "trainer.max_epochs=1", *overrides)
    data = build_data(config)
    assert isinstance(data, ImageDataModule)
    return build_network(config["model"], data.facts), data, config


def test_bare_trainer_ends_with_the_weights_of_the_loop_by_hand() -> None:
    network, data, config = _network_and_data()
    by_hand, by_trainer = (make(deepcopy(network), data, config) for make in (BareLoop, BareTrainer))

    assert min(by_hand.train(0), by_trainer.train(0)) > 0

    trained = by_trainer.module.network.state_dict()
    for name, weights in by_hand.network.state_dict().items():
        torch.testing.assert_close(weights, trained[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(weights, network.state_dict()[name])


# ---- images in files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JPEG files."""
    return jpegs.in_folder(QUICK, tmp_path_factory.mktemp("jpegs"))


def test_files_are_found_in_a_folder_and_in_an_archive_of_one(drawn: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", drawn.parent, drawn.name)
    (tmp_path / "empty").mkdir()
    from_folder = replace(QUICK, root=str(drawn))
    from_archive = replace(QUICK, root=archive)

    assert len(list(drawn.glob("train/*/*.jpg"))) == 60
    assert jpegs.in_folder(from_folder, tmp_path / "unused") == drawn
    unpacked = jpegs.in_folder(from_archive, tmp_path / "empty")
    assert unpacked.parent == tmp_path / "empty"
    assert len(list(unpacked.glob("test/*/*.jpg"))) == 20


def test_both_stream_every_image_once_alike(drawn: Path, tmp_path: Path) -> None:
    plain = ("data.crop_padding=0", "data.flip=false")
    data = data_path.prepared(*streaming.overrides(drawn, tmp_path, 16, 0), *plain)
    theirs = streaming.usual(data, drawn, 16, 0)
    theirs.dataset.transform.transforms[1].p = 0.0  # the flip

    ours, usual = (
        torch.cat([images.flatten(1).sum(1) for images, _ in batches]) for batches in (data_path.Epochs(data), theirs)
    )

    torch.testing.assert_close(ours.sort().values, usual.sort().values, rtol=1e-4, atol=1e-3)


def test_streaming_row() -> None:
    (row,) = streaming.rows(QUICK)

    assert row.name == "data path, batch 16, storage=stream"
    assert len(row.ours) == len(row.theirs) == QUICK.num_rounds


# ---- whole runs


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    data = data_path.prepared(*QUICK.data)
    in_memory.save(data, folder, num_val=len(data.val_members))
    return folder


@pytest.mark.filterwarnings("ignore")  # what Lightning says by default is part of the usual set-up
def test_usual_lightning_trains_and_tests(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual_lightning, "NUM_WORKERS", 0)

    found = usual_lightning.main(arrays, 1, 16, tmp_path)

    assert 0 <= found["accuracy"] <= 1
    assert found["training"] > 0
    assert list(tmp_path.rglob("*.ckpt"))
    assert list(tmp_path.rglob("events.*"))


def test_usual_lightning_sees_the_images_of_litlab(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual_lightning, "NUM_WORKERS", 0)
    data = data_path.prepared(*QUICK.data, "data.batch_size=40")

    (theirs, _), ours = next(iter(usual_lightning.ImagesByWorkers(arrays, 40).val_dataloader())), data.val_dataloader()

    assert not isinstance(ours, list)
    torch.testing.assert_close(data.finish(next(iter(ours)), epoch=None).images, theirs, rtol=0, atol=1e-5)


def test_time_rows_hold_each_recipe_against_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tutorial, "NUM_WORKERS", 0)

    def recipe(*overrides: str) -> Outcome:
        run = train_here(tmp_path / "run", *overrides, "trainer=cpu", "trainer.log_every_n_steps=2", "threads=1")
        result = read_result(run)
        return Outcome(result["test"]["test/accuracy"], 8.0, result["seconds"]["training"])

    def classic(folder: Path, seed: int) -> Outcome:
        found = tutorial.main(folder, seed)
        return Outcome(found["accuracy"], 16.0, found["training"])

    training, whole, accuracy = time_to_accuracy.rows(QUICK, recipe=recipe, tutorial=classic)

    assert training.name == "quickstart: training"
    assert min(training.ours + training.theirs) > 0
    assert whole.ratios == (0.5,)
    assert all(0 <= each <= 100 for each in accuracy.ours + accuracy.theirs)


def test_a_recipe_of_fewer_rounds_is_held_against_the_first_of_the_tutorial() -> None:
    seeds: list[str] = []

    def recipe(*overrides: str) -> Outcome:
        seeds.append(f"{overrides[0]} {overrides[-1]}")
        return Outcome(0.5, 10.0, 8.0)

    def classic(arrays: Path, seed: int) -> Outcome:
        return Outcome(0.5, 20.0 * (seed + 1), 16.0)

    found = time_to_accuracy.rows(replace(QUICK, recipes={"a": 2, "b": 1}), recipe=recipe, tutorial=classic)

    assert seeds == ["experiment=a seed=0", "experiment=b seed=0", "experiment=a seed=1"]
    ratios = {row.name: row.ratios for row in found}
    assert (ratios["a: whole process"], ratios["b: whole process"]) == ((0.5, 0.25), (0.5,))


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_recipes_that_are_measured_exist(name: str) -> None:
    assert compose_config(*recipes.RECIPES[name].overrides)["trainer"]
    assert set(settings.full(None).recipes) < set(recipes.RECIPES)


# ---- a GPU


def test_fast_loop_is_the_loop_by_hand_in_less_precision() -> None:
    network, data, config = _network_and_data("model=resnet18", "model.width=4")
    plain, fast = BareLoop(deepcopy(network), data, config), gpu.FastLoop(deepcopy(network), data, config)
    batch = next(iter(plain.loader))

    losses = plain.loss(batch, 0), fast.loss(batch, 0)

    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)
    assert not torch.equal(*losses)
    convolution = next(module for module in fast.network.modules() if isinstance(module, nn.Conv2d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_data_row_of_a_device() -> None:
    (row,) = gpu.data_rows(QUICK, accelerator="cpu")

    assert row.name == "GPU: data path, batch 512"
    assert min(row.ours + row.theirs) > 0


def test_training_row_of_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BATCH_SIZE", 16)
    name = "bf16-mixed, channels_last"
    monkeypatch.setattr(gpu, "SWITCHES", {name: gpu.SWITCHES[name]})
    small = ("data.num_train=88", "model.width=1", "trainer.log_every_n_steps=2")

    (row,) = gpu.training_rows(QUICK, lambda run, *overrides: train_here(run, *overrides, *small), accelerator="cpu")

    assert row.name == "GPU: resnet18, bf16-mixed, channels_last"
    assert len(row.ours) == len(row.theirs) == QUICK.num_rounds
    assert min(row.ours + row.theirs) > 0


def test_switches_are_keys_of_the_config() -> None:
    *_, overrides = gpu.SWITCHES.values()

    config = compose_config("trainer=gpu", "model=resnet18", *overrides)

    assert config["task"]["compile"] is config["task"]["channels_last"] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_rows_of_a_gpu_are_left_out_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "gpu"])

    __main__.main()

    assert capsys.readouterr().out.endswith(f"{__main__.NO_GPU}\n")
