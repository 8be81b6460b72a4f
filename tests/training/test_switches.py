"""What a run can be switched to, alone and together: values against plain PyTorch, and exact resumption."""

import json
import math
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from reliability.runs import SMALL, Reference, small_run
from reliability.workers import Workers
from support.exact_resume import differences, new_run, outcome, train_until
from support.small_fit import Batches, Rows, make_trainer
from torch import Tensor, nn
from torch._dynamo.utils import counters

from litlab.cli import evaluate
from litlab.data.loader import Partners
from litlab.errors import UserError
from litlab.inference.predictor import load
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.runs.signature import sign
from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.checkpoint_io import read_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is smaller than the logging interval
]
EMA = ("callbacks=ema", "callbacks.ema.decay=0.8")
TOGETHER = {
    "averages, accumulation, bf16-true, channels last, mirror images": (
        *EMA, "callbacks.ema.every_steps=2", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3",
        "trainer.precision=bf16-true", "task.channels_last=true", "task.test_time_flip=true", "task.test_time_shift=1",
    ),
    "averages, bf16-mixed, channels last": (*EMA, "trainer.precision=bf16-mixed", "task.channels_last=true"),
}  # fmt: skip
no_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++")


def make_task(**changes: Any) -> ImageClassifier:
    """Whose gradients are sums that other layouts and compilers add up in other orders, so that they can differ."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
    arguments: dict[str, Any] = {
        "network": network,
        "optimizer": partial(torch.optim.SGD, lr=0.05),
        "schedule": None,
        "num_classes": 6,
        "label_smoothing": 0.0,
        "channels_last": False,
        "compile": False,
        "test_time_flip": False,
        "test_time_shift": 0,
        "metrics": {},
    }
    return ImageClassifier(**(arguments | changes))


def fitted(task: ImageClassifier, num_images: int = 40, **changes: Any) -> dict[str, Tensor]:
    make_trainer([Rows()], [], **({"max_epochs": 2} | changes)).fit(task, Batches(num_images), Batches(8))
    return task.state_dict()


@pytest.mark.parametrize("switched", TOGETHER)
def test_a_stop_and_resumption_changes_nothing(switched: str, tmp_path: Path) -> None:
    overrides = (*SMALL, *TOGETHER[switched])
    whole, config = new_run(tmp_path / "whole", *overrides)
    looks = train_until(whole, config, None)
    assert looks is not None
    for number in (4, looks // 2 + 2):
        run, _ = new_run(tmp_path / f"stopped-{number}", *overrides)
        assert train_until(run, config, number) is None
        assert read_checkpoint(run.last)["global_step"] > 0
        train_until(run, config, None)
        assert differences(outcome(whole), outcome(run)) == []


def test_two_ranks_with_averages_go_on_exactly(tmp_path: Path) -> None:
    overrides = (*SMALL, *EMA, "trainer.strategy=ddp", "trainer.devices=2", "checkpoint.every_steps=2")
    whole, run = (small_run(tmp_path / name, *overrides) for name in ("whole", "run"))
    slowly = {"LITLAB_TEST_SIGNAL": f"train_batch 4 {signal.SIGTERM:d}", "LITLAB_TEST_SLEEP": "train_batch 0 0.15"}
    workers = Workers()
    try:
        undisturbed, stopped = workers.forked_ranks(whole, 2), workers.forked_ranks(run, 2, **slowly)
        assert [each.wait() for each in stopped] == [143, 143], stopped[0].said()
        for worker in (*undisturbed, *workers.forked_ranks(run, 2)):
            assert worker.wait() == 0, worker.said()
    finally:
        workers.end_all()
    Reference.of(whole).assert_equal(run)


def test_a_longer_training_goes_on_with_the_weights_not_with_their_average(tmp_path: Path) -> None:
    overrides = (*SMALL, *EMA, "schedule=constant", "trainer.val_check_interval=1.0")
    whole, config = new_run(tmp_path / "whole", *overrides, "trainer.max_epochs=3")
    train_until(whole, config, None)
    run, shorter = new_run(tmp_path / "run", *overrides, "trainer.max_epochs=2")
    train_until(run, shorter, None)
    train_until(run, config, None)
    left, right = read_checkpoint(whole.last), read_checkpoint(run.last)
    assert differences(left["state_dict"] | left["litlab_ema"], right["state_dict"] | right["litlab_ema"]) == []


@pytest.fixture
def switched_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", [*sys.path])
    kept = [each for each in SMALL if "model" not in each and "watch" not in each]
    network = ("model.widths=[2,4]", "model.hidden=[8]", "optimizer.lr=0.3")
    run, config = new_run(
        tmp_path / "run", *kept, *EMA, *network, "task.test_time_flip=true", "task.channels_last=true"
    )
    sign(run)
    train_until(run, config, None)
    return run


def test_what_was_tested_is_what_is_evaluated_and_predicted(
    switched_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    evaluate.main([str(switched_run.path), "--checkpoint", "best", "--json"])
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert found == read_result(switched_run)["test"]
    predictor = load(switched_run.path)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    left, right = (predictor.network(predictor.preprocess(each)) for each in (images, images.flip(3)))
    torch.testing.assert_close(predictor(images), ((left + right) / 2).softmax(dim=1))
    assert not torch.allclose(predictor(images), left.softmax(dim=1), rtol=1e-4)
    checkpoint = read_checkpoint(switched_run.best)
    for name, value in predictor.network.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"network.{name}"])


def test_channels_last_computes_the_same_and_is_saved_the_same() -> None:
    plain, switched = make_task(), make_task(channels_last=True)
    seen: list[Tensor] = []
    switched.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    expected, found = fitted(plain), fitted(switched)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert switched.network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert switched.memory_format == torch.channels_last
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def _moved(images: Tensor, pixels: int) -> Tensor:
    """Pixel by pixel: what lies outside is reflected at the border, which comes once."""
    size = images.shape[2]
    places = [-k if k < 0 else 2 * (size - 1) - k if k >= size else k for k in range(-pixels, size - pixels)]
    return images[:, :, places][:, :, :, places]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_views_are_averaged_in_evaluation_alone(flip: bool, shift: int) -> None:
    task, network = make_task(test_time_flip=flip, test_time_shift=shift), make_task().network.eval()
    (batch,) = Batches(8)
    rows = Rows()
    make_trainer([rows], []).validate(task, Batches(8), verbose=False)

    def once(images: Tensor) -> Tensor:
        return (network(images) + network(images.flip(3))) / 2 if flip else network(images)

    moved = [once(_moved(batch.images, pixels)) for pixels in (shift, -shift)]
    logits = once(batch.images) / 2 + sum(moved) / 4
    assert rows.values("val/loss")[0] == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-6)
    assert torch.allclose(logits, network(batch.images), rtol=1e-3) == (not flip and not shift)
    task.train()
    assert torch.equal(task(batch.images), make_task()(batch.images))


def test_images_are_not_moved_by_their_own_size() -> None:
    with pytest.raises(UserError, match="test_time_shift=32 must be less than the images' size, 16x32"):
        make_task(test_time_shift=32).eval()(torch.zeros(1, 3, 16, 32))


def test_the_loss_of_mixed_images_is_that_of_soft_labels() -> None:
    task = make_task(label_smoothing=0.1)
    task.trainer = make_trainer([], [])
    (batch,) = Batches(7)  # seven real rows of eight
    assert batch.num_valid == 7
    partners = Partners(batch.images, batch.labels.flip(0), batch.indices.flip(0), torch.linspace(0, 1, 8))
    loss = task.training_step(batch._replace(partners=partners), 0)
    share = torch.linspace(0, 1, 8)[:, None]
    soft = share * F.one_hot(batch.labels, 6) + (1 - share) * F.one_hot(batch.labels.flip(0), 6)
    soft = 0.9 * soft + 0.1 / 6
    expected = F.cross_entropy(make_task()(batch.images)[:7], soft[:7])
    torch.testing.assert_close(loss, expected)
    assert task.train_metrics.compute()["loss"] == pytest.approx(expected.item(), rel=1e-6)
    own = (make_task()(batch.images)[:7].argmax(dim=1) == batch.labels[:7]).float().mean()
    assert task.train_metrics.compute()["accuracy"] == own


@pytest.mark.filterwarnings("ignore:You passed `Trainer.accelerator='cpu', precision='16-mixed'.`")
def test_a_precision_that_a_cpu_has_not_is_refused(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *SMALL, "trainer.precision=16-mixed")
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed needs a GPU; on a CPU use bf16-mixed"):
        train_until(run, config, None)
    assert not run.metrics.exists()


def test_the_state_of_a_gradient_scaler_is_in_a_checkpoint() -> None:
    """On a GPU, under 16-mixed; here with torch's scaler for the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    trainer = make_trainer([Rows()], [], plugins=[precision], max_epochs=2)
    trainer.fit(make_task(), Batches(40))
    saved = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)["MixedPrecision"]
    assert saved == scaler.state_dict()
    assert (saved["scale"], saved["_growth_tracker"]) == (64.0 * 2**3, 1)  # ten steps


class OneLayer(nn.Sequential):
    """Compiled in seconds."""

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int], dropout: float) -> None:
        super().__init__(nn.Flatten(), nn.Dropout(dropout), nn.Linear(math.prod(image_shape), num_classes))


def test_compiled_training_is_the_same_with_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as always, but without C++ for it, which takes ten seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    states = {}
    for switched in (False, True):
        states[switched] = fitted(make_task(compile=switched, channels_last=True, test_time_flip=True), max_epochs=3)
    assert counters["stats"]["unique_graphs"] == 1  # not for validation, nor anew in each epoch
    assert list(states[True]) == list(states[False])
    for name, value in states[False].items():
        torch.testing.assert_close(states[True][name], value, rtol=1e-4, atol=1e-6)


@no_compiler
def test_compiled_training_goes_on_exactly(tmp_path: Path) -> None:
    """From before the last batch of an epoch, which is smaller: the compiler sees that shape first."""
    network = ("model._target_=test_switches.OneLayer", "~model.widths", "~model.hidden", "+model.dropout=0.3")
    kept = [each for each in SMALL if "model" not in each]
    overrides = (*kept, *network, "task.compile=true", "data.num_train=58", "checkpoint.every_steps=null")
    whole, config = new_run(tmp_path / "whole", *overrides)
    torch._dynamo.reset()
    counters.clear()
    train_until(whole, config, None)
    assert counters["stats"]["unique_graphs"] == 2
    run, _ = new_run(tmp_path / "run", *overrides)
    assert train_until(run, config, 6) is None
    assert read_checkpoint(run.last)["global_step"] == 5
    torch._dynamo.reset()
    train_until(run, config, None)
    assert differences(outcome(whole), outcome(run)) == []


def test_a_missing_compiler_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/such/compiler"))
    task = make_task(compile=True)
    with pytest.raises(UserError, match=r"task.compile=true needs a C\+\+ compiler on a CPU, .* none that works"):
        fitted(task)
    assert task.trainer.global_step == 0
