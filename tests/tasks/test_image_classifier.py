"""The task against plain PyTorch: loss, gradient, metrics, precision, optimizer and schedule."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from litlab.data.loader import Batch
from litlab.errors import UserError
from litlab.optim import schedules as optim
from litlab.tasks.image_classifier import ImageClassifier
from litlab.tasks.metrics import EvaluationMetrics

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

NUM_CLASSES = 7


def make_batch(size: int, *, num_valid: int | None = None, num_global: int | None = None, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 4, 4, generator=generator)
    labels = torch.randint(0, NUM_CLASSES, (size,), generator=generator)
    num_valid = size if num_valid is None else num_valid
    return Batch(images, labels, torch.arange(size), num_valid, num_valid if num_global is None else num_global)


def make_task(**changes: object) -> ImageClassifier:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, NUM_CLASSES))
    arguments: dict = {
        "network": network,
        "optimizer": partial(torch.optim.SGD, lr=0.1, weight_decay=0.5),
        "schedule": None,
        "num_classes": NUM_CLASSES,
        "label_smoothing": 0.0,
        "channels_last": False,
        "compile": False,
        "test_time_flip": False,
        "test_time_shift": 0,
        "metrics": {},
    }
    return ImageClassifier(**(arguments | changes))


def make_trainer(**changes: object) -> Trainer:
    arguments: dict = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
        "log_every_n_steps": 1,
    }
    return Trainer(**(arguments | changes))


class Batches:
    """A loader; a plain list would be taken for a list of loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def gradient(task: ImageClassifier, loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(task.network.parameters()))])


@pytest.mark.parametrize("num_valid_per_rank", [(4, 4), (4, 1), (3, 0)])
def test_gradients_averaged_over_ranks_are_those_of_one_process(num_valid_per_rank: tuple[int, int]) -> None:
    task = make_task(label_smoothing=0.1)
    num_global = sum(num_valid_per_rank)
    task.trainer = make_trainer()
    task.trainer.strategy.world_size = 2
    parts = [
        make_batch(4, num_valid=num_valid, num_global=num_global, seed=rank)
        for rank, num_valid in enumerate(num_valid_per_rank)
    ]
    averaged = sum(gradient(task, task.training_step(part, 0)) for part in parts) / 2
    images = torch.cat([part.images[: part.num_valid] for part in parts])
    labels = torch.cat([part.labels[: part.num_valid] for part in parts])
    expected = gradient(task, F.cross_entropy(task.network(images), labels, label_smoothing=0.1))
    torch.testing.assert_close(averaged, expected)


def test_evaluation_counts_real_rows_only_and_logs_plain_cross_entropy() -> None:
    task = make_task(label_smoothing=0.3)
    batches = [make_batch(6, seed=0), make_batch(6, num_valid=5, seed=1), make_batch(6, num_valid=0, num_global=6)]
    images, labels = torch.cat([batches[0].images, batches[1].images[:5]]), torch.cat([b.labels for b in batches])[:11]
    with torch.no_grad():
        logits = task.network(images)
    (values,) = make_trainer().validate(task, Batches(batches), verbose=False)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    assert values["val/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert values["val/accuracy"] == pytest.approx((ranks == 0).float().mean().item(), rel=1e-6)
    assert values["val/top5_accuracy"] == pytest.approx((ranks < 5).float().mean().item(), rel=1e-6)
    assert values["val/calibration_error"] == pytest.approx(calibration_error(logits, labels), rel=1e-5)
    (again,) = make_trainer().test(task, Batches(batches), verbose=False)
    assert {name.replace("test/", "val/"): value for name, value in again.items()} == values


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    bins = (confidence * 15).long()
    gaps = [
        ((predicted == labels).float()[bins == number].mean() - confidence[bins == number].mean()).abs()
        * (bins == number).float().mean()
        for number in bins.unique()
    ]
    return sum(gap.item() for gap in gaps)


def test_steps_return_the_real_rows_for_callbacks() -> None:
    task = make_task()
    batch = make_batch(6, num_valid=4)
    output = task.validation_step(batch, 0)
    assert output["logits"].shape == (4, NUM_CLASSES)
    torch.testing.assert_close(
        output["losses"], F.cross_entropy(output["logits"], batch.labels[:4], reduction="none"), rtol=0, atol=0
    )


def test_top5_accuracy_of_fewer_classes_is_one() -> None:
    metrics = EvaluationMetrics(num_classes=3, metrics={})
    metrics.update(torch.zeros(4), torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    assert metrics.compute()["top5_accuracy"] == 1


def test_metrics_keep_counting_in_bfloat16() -> None:
    task = make_task().bfloat16()
    task.to(dtype=torch.bfloat16)
    for seed in range(4):
        batch = make_batch(200, seed=seed)
        task.train_metrics.update(torch.full((200,), 1.25), torch.randn(200, NUM_CLASSES), batch.labels)
    assert task.train_metrics.compute()["loss"] == 1.25
    assert task.train_metrics.loss_and_accuracy.loss_sum.dtype == torch.float32


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_training_reduces_the_loss_in_each_precision(precision: str) -> None:
    task = make_task(schedule=partial(optim.one_cycle, warmup=0.25, initial=0.04, final=0.0))
    batches = [make_batch(16)] * 30
    (before,) = make_trainer(precision=precision).test(task, Batches(batches[:1]), verbose=False)
    make_trainer(precision=precision).fit(task, Batches(batches))
    (after,) = make_trainer(precision=precision).test(task, Batches(batches[:1]), verbose=False)
    assert after["test/loss"] < 0.7 * before["test/loss"]


def test_weight_decay_reaches_matrices_only() -> None:
    optimizer = make_task().configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {"decay": 0.5, "no_decay": 0.0}


def test_schedule_gets_total_steps_and_is_stepped_at_each_step() -> None:
    task = make_task(schedule=partial(OneCycleLR, max_lr=0.3, cycle_momentum=False))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(task, Batches([make_batch(4)] * 5))
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.total_steps == 10
    assert config.scheduler.last_epoch == 10


def test_total_steps_of_the_user_are_kept() -> None:
    task = make_task(schedule=partial(OneCycleLR, max_lr=0.3, cycle_momentum=False, total_steps=40))
    trainer = make_trainer()
    trainer.fit(task, Batches([make_batch(4)] * 5))
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 40


def test_unlimited_training_needs_a_constant_schedule() -> None:
    task = make_task(schedule=partial(optim.cosine, warmup=0.1, final=0.0))
    with pytest.raises(UserError, match="schedule=constant"):
        make_trainer(max_epochs=-1).fit(task, Batches([make_batch(4)]))


class Pair(nn.Sequential):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images), images


@pytest.mark.parametrize(
    ("network", "returned"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 1000)), r"shape \(6, 1000\)"),
        (Pair(nn.Flatten(), nn.Linear(16, NUM_CLASSES)), "tuple"),
    ],
)
def test_wrong_logits_are_refused(network: nn.Module, returned: str) -> None:
    task = make_task(network=network)
    with pytest.raises(UserError, match=f"{returned}.* expects logits of shape \\(6, 7\\)"):
        task.validation_step(make_batch(6), 0)


def test_state_dict_holds_only_the_network() -> None:
    task: LightningModule = make_task()
    assert all(key.startswith("network.") for key in task.state_dict())
    assert len(task.state_dict()) == 6
