"""The task against plain PyTorch: loss, gradient, metrics, precision, optimizer, schedule and options."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from support import small_fit
from support.small_fit import Batches, Loader, Rows
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.optim.lr_scheduler import OneCycleLR

from litlab.callbacks.training_log import TrainingLog
from litlab.data.loader import Batch, Partners
from litlab.data.loss_table import LossTable
from litlab.errors import UserError
from litlab.optim import schedules as optim
from litlab.optim.schedule_factory import ScheduleFactory
from litlab.tasks.image_classifier import ImageClassifier
from litlab.tasks.metrics import EvaluationMetrics

NUM_CLASSES = 7


def make_batch(size: int, *, num_valid: int | None = None, num_global: int | None = None, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 4, 4, generator=generator)
    labels = torch.randint(0, NUM_CLASSES, (size,), generator=generator)
    num_valid = size if num_valid is None else num_valid
    return Batch(images, labels, torch.arange(size), num_valid, num_valid if num_global is None else num_global)


def make_task(**changes: Any) -> ImageClassifier:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, NUM_CLASSES))
    optimizer = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5)
    arguments = {"network": network, "optimizer": optimizer, "schedule": None, "num_classes": NUM_CLASSES}
    return small_fit.make_task(**(arguments | changes))


def make_trainer(**changes: Any) -> Trainer:
    return small_fit.make_trainer([], [], **({"max_epochs": 1, "log_every_n_steps": 1} | changes))


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
    averaged = sum(gradient(task, task.training_step(part, rank)) for rank, part in enumerate(parts)) / 2
    images = torch.cat([part.images[: part.num_valid] for part in parts])
    labels = torch.cat([part.labels[: part.num_valid] for part in parts])
    expected = gradient(task, F.cross_entropy(task.network(images), labels, label_smoothing=0.1))
    torch.testing.assert_close(averaged, expected)


def test_losses_of_real_rows_are_recorded_as_they_are_minimized() -> None:
    task = make_task(label_smoothing=0.1, class_weights=[1, 2, 3, 4, 5, 6, 7])
    task.trainer, table = make_trainer(), LossTable(9, 0.5, torch.device("cpu"))
    batch = make_batch(6, num_valid=4)._replace(indices=torch.tensor([8, 0, 3, 5, 8, 8]), loss_table=table)
    loss = task.training_step(batch, 0)
    latest = table.state()["latest"]
    expected = F.cross_entropy(task.network(batch.images[:4]), batch.labels[:4], reduction="none", label_smoothing=0.1)
    assert task.loss.class_weights is not None
    torch.testing.assert_close(latest[[8, 0, 3, 5]], expected.detach() * task.loss.class_weights[batch.labels[:4]])
    assert latest.isfinite().sum() == 4
    assert latest[[8, 0, 3, 5]].mean().item() == pytest.approx(loss.item(), rel=1e-6)


def test_evaluation_counts_real_rows_only_and_logs_plain_cross_entropy() -> None:
    task = make_task(label_smoothing=0.3)
    batches = [make_batch(6, seed=0), make_batch(6, num_valid=5, seed=1), make_batch(6, num_valid=0, num_global=6)]
    images, labels = torch.cat([batches[0].images, batches[1].images[:5]]), torch.cat([b.labels for b in batches])[:11]
    with torch.no_grad():
        logits = task.network(images)
    (values,) = make_trainer().validate(task, Loader(batches), verbose=False)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    assert values["val/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert values["val/accuracy"] == pytest.approx((ranks == 0).float().mean().item(), rel=1e-6)
    assert values["val/top5_accuracy"] == pytest.approx((ranks < 5).float().mean().item(), rel=1e-6)
    assert values["val/calibration_error"] == pytest.approx(calibration_error(logits, labels), rel=1e-5)
    (again,) = make_trainer().test(task, Loader(batches), verbose=False)
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
    task = make_task(schedule=by_step(partial(optim.one_cycle, warmup=0.25, initial=0.04, final=0.0)))
    batches = [make_batch(16)] * 30
    (before,) = make_trainer(precision=precision).test(task, Loader(batches[:1]), verbose=False)
    make_trainer(precision=precision).fit(task, Loader(batches))
    (after,) = make_trainer(precision=precision).test(task, Loader(batches[:1]), verbose=False)
    assert after["test/loss"] < 0.7 * before["test/loss"]


def test_weight_decay_reaches_matrices_only() -> None:
    optimizer = make_task().configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {"decay": 0.5, "no_decay": 0.0}


def by_step(make: Any, *, needs_total_steps: bool = True) -> ScheduleFactory:
    return ScheduleFactory(make, interval="step", needs_total_steps=needs_total_steps)


@pytest.mark.parametrize(("arguments", "total_steps"), [({}, 10), ({"total_steps": 40}, 40)])
def test_schedule_gets_total_steps_unless_the_user_sets_them(arguments: dict[str, int], total_steps: int) -> None:
    make = partial(OneCycleLR, max_lr=0.3, cycle_momentum=False, **arguments)
    task = make_task(schedule=by_step(make, needs_total_steps=not arguments))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(task, Loader([make_batch(4)] * 5))
    (config,) = trainer.lr_scheduler_configs
    assert (config.scheduler.total_steps, config.scheduler.last_epoch) == (total_steps, 10)


def test_unlimited_training_needs_a_constant_schedule() -> None:
    task = make_task(schedule=by_step(partial(optim.cosine, warmup=0.1, final=0.0)))
    with pytest.raises(UserError, match="schedule=constant"):
        make_trainer(max_epochs=-1).fit(task, Loader([make_batch(4)]))


class CountsEvaluations(torch.optim.LBFGS):
    """LBFGS that counts how often it has evaluated a batch."""

    num_evaluations = 0

    def step(self, closure: Any) -> Any:
        def counted() -> Any:
            self.num_evaluations += 1
            return closure()

        return super().step(counted)


class EvaluatesTwice(torch.optim.SGD):
    """SGD that evaluates each batch at a second point, as SAM does, and uses the gradients there."""

    num_evaluations = 0

    def step(self, closure: Any) -> Any:
        self.num_evaluations += 2
        loss = closure()
        moved = [p.detach() for group in self.param_groups for p in group["params"]]
        torch._foreach_add_(moved, 1.0)
        closure()
        torch._foreach_sub_(moved, 1.0)
        super().step()
        return loss


@pytest.mark.parametrize("optimizer", [partial(CountsEvaluations, max_iter=4), EvaluatesTwice])
def test_an_optimizer_that_evaluates_each_batch_several_times_counts_it_once(optimizer: Any) -> None:
    """Its first evaluation of a batch is that of the weights before the step, as for any other optimizer."""
    rows, batches = Rows(), [make_batch(16, seed=seed) for seed in range(3)]
    task = make_task(optimizer=partial(optimizer, lr=0.1))
    losses = []

    class Losses(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
        ) -> None:
            with torch.no_grad():
                losses.append(F.cross_entropy(task.network(batch.images), batch.labels).item())

    trainer = small_fit.make_trainer([rows], [TrainingLog(), Losses()], max_epochs=2, log_every_n_steps=3)
    trainer.fit(task, Loader(batches))
    assert trainer.optimizers[0].num_evaluations > 6
    assert trainer.global_step == 6
    expected = {3: sum(losses[:3]) / 3, 6: sum(losses[3:]) / 3}
    assert rows.values("train/loss") == pytest.approx(expected, rel=1e-5)


def test_lbfgs_has_one_group() -> None:
    task = make_task(optimizer=partial(torch.optim.LBFGS, lr=0.1))
    task.trainer = make_trainer()
    (group,) = task.configure_optimizers().param_groups
    assert len(group["params"]) == len(list(task.network.parameters()))


@pytest.mark.parametrize("changes", [{"accumulate_grad_batches": 2}, {"devices": 2, "strategy": "ddp_spawn"}])
def test_lbfgs_is_refused_where_it_would_be_wrong(changes: dict[str, Any]) -> None:
    task = make_task(optimizer=partial(torch.optim.LBFGS, lr=0.1))
    task.trainer = make_trainer(**changes)
    with pytest.raises(UserError, match=r"LBFGS evaluates each batch several times, which works on one device, with"):
        task.configure_optimizers()


class Pair(nn.Sequential):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images), images


@pytest.mark.parametrize(
    ("network", "returned"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 1000)), r"shape \(6, 1000\)"),
        (Pair(nn.Flatten(), nn.Linear(16, NUM_CLASSES)), "a tuple"),
        (nn.Conv2d(1, NUM_CLASSES, 1), r"shape \(6, 7, 4, 4\)"),
    ],
)
def test_wrong_logits_are_refused(network: nn.Module, returned: str) -> None:
    task = make_task(network=network)
    remedy = "let the network take num_classes" if "1000" in returned else "return the logits alone, one row for each"
    with pytest.raises(UserError, match=f"{returned}.* expects logits of shape \\(6, 7\\).* classes: {remedy}"):
        task.validation_step(make_batch(6), 0)


def test_state_dict_holds_only_the_network() -> None:
    task: LightningModule = make_task()
    assert all(key.startswith("network.") for key in task.state_dict())
    assert len(task.state_dict()) == 6


def make_conv_task(**changes: Any) -> ImageClassifier:
    """Make a task whose gradients are sums that other layouts and compilers add up in other orders."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
    return small_fit.make_task(network=network, schedule=None, **changes)


def fitted(task: ImageClassifier, num_images: int = 40, **changes: Any) -> dict[str, Tensor]:
    small_fit.make_trainer([Rows()], [], **({"max_epochs": 2} | changes)).fit(task, Batches(num_images), Batches(8))
    return task.state_dict()


def test_channels_last_computes_the_same_and_is_saved_the_same() -> None:
    plain, switched = make_conv_task(), make_conv_task(channels_last=True)
    seen: list[Tensor] = []
    switched.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    expected, state = fitted(plain), fitted(switched)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert switched.network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert switched.memory_format == torch.channels_last
    assert list(state) == list(expected)
    torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-6)


def _moved(images: Tensor, pixels: int) -> Tensor:
    """Shift down and right, pixel by pixel; reflect at the borders without repeating the border pixel."""
    size = images.shape[2]
    rows = [-k if k < 0 else 2 * (size - 1) - k if k >= size else k for k in range(-pixels, size - pixels)]
    return images[:, :, rows][:, :, :, rows]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_views_are_averaged_in_evaluation_alone(flip: bool, shift: int) -> None:
    task = make_conv_task(test_time_flip=flip, test_time_shift=shift)
    network = make_conv_task().network.eval()
    (batch,) = Batches(8)
    rows = Rows()
    small_fit.make_trainer([rows], []).validate(task, Batches(8), verbose=False)

    def once(images: Tensor) -> Tensor:
        return (network(images) + network(images.flip(3))) / 2 if flip else network(images)

    moved = [once(_moved(batch.images, pixels)) for pixels in (shift, -shift)]
    logits = once(batch.images) / 2 + sum(moved) / 4
    assert rows.values("val/loss")[0] == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-6)
    assert torch.allclose(logits, network(batch.images), rtol=1e-3) == (not flip and not shift)
    task.train()
    assert torch.equal(task(batch.images), make_conv_task()(batch.images))


def test_copies_of_images_that_the_network_is_sure_of_are_left_out() -> None:
    """By what it makes of an image alone, in whatever batch that is."""
    network = make_conv_task().network.eval()
    images = Batches(32).images
    ordered = network(images).softmax(dim=1).sort(dim=1, descending=True).values
    alone = ordered[:, 0] - ordered[:, 1]
    margin = alone.sort().values[12:14].mean().item()
    plain, views = (make_conv_task(test_time_flip=True, test_time_shift=shift).eval() for shift in (0, 1))
    task = make_conv_task(test_time_flip=True, test_time_shift=1, test_time_margin=margin).eval()
    num_images: list[int] = []
    task.network.register_forward_pre_hook(lambda _, arguments: num_images.append(len(arguments[0])))
    logits = task(images)
    assert num_images == [32] + [13] * 5
    is_sure = (alone >= margin)[:, None]
    torch.testing.assert_close(logits, torch.where(is_sure, network(images), views(images)))
    for order in (torch.arange(31, -1, -1), torch.arange(0, 32, 3), alone.argsort()[13:], alone.argsort()[:13]):
        torch.testing.assert_close(task(images[order]), logits[order])
    assert not torch.allclose(plain(images), logits, rtol=1e-3)


def test_images_are_not_moved_by_their_own_size() -> None:
    with pytest.raises(UserError, match="test_time_shift=32 must be less than the images' size, 16x32"):
        make_conv_task(test_time_shift=32).eval()(torch.zeros(1, 3, 16, 32))


def test_the_loss_of_mixed_images_is_that_of_soft_labels() -> None:
    task = make_conv_task(label_smoothing=0.1)
    task.trainer = make_trainer()
    (batch,) = Batches(7)  # seven real rows of eight
    assert batch.num_valid == 7
    partners = Partners(batch.images, batch.labels.flip(0), batch.indices.flip(0), torch.linspace(0, 1, 8))
    loss = task.training_step(batch._replace(partners=partners), 0)
    lam = torch.linspace(0, 1, 8)[:, None]
    soft = lam * F.one_hot(batch.labels, 6) + (1 - lam) * F.one_hot(batch.labels.flip(0), 6)
    soft = 0.9 * soft + 0.1 / 6
    expected = F.cross_entropy(make_conv_task()(batch.images)[:7], soft[:7])
    torch.testing.assert_close(loss, expected)
    assert task.train_metrics.compute()["loss"] == pytest.approx(expected.item(), rel=1e-6)
    own = (make_conv_task()(batch.images)[:7].argmax(dim=1) == batch.labels[:7]).float().mean()
    assert task.train_metrics.compute()["accuracy"] == own


@pytest.mark.integrations
def test_compiled_training_is_the_same_with_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as always, but without C++ for it, which takes ten seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    settings = {"channels_last": True, "test_time_flip": True, "freeze": ["0"], "freeze_after_epochs": 2}
    plain, switched = (fitted(make_conv_task(compile=compile, **settings), max_epochs=4) for compile in (False, True))
    assert counters["stats"]["unique_graphs"] == 2  # anew without the frozen layer, not for validation or each epoch
    assert list(switched) == list(plain)
    torch.testing.assert_close(switched, plain, rtol=1e-4, atol=1e-6)


def test_a_missing_compiler_is_reported_at_the_start() -> None:
    task, message = make_conv_task(compile=True), r"task.compile=true needs a working C\+\+ compiler on a CPU: install"
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")}),
        pytest.raises(UserError, match=message),
    ):
        fitted(task)
    assert task.trainer.global_step == 0
