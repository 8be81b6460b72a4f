"""What callbacks freeze, switch to evaluation or accumulate from some epoch on, after a stop and a resume."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, GradientAccumulationScheduler
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import pair
from support.runs import TINY, Command
from torch import Tensor, nn

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

HERE = "training.test_module_state"
NUMBERS = "support.foreign.Numbers"  # 4 batches of training and 4 of validation in an epoch
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")


class Finetuned(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.head = nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Tensor) -> Tensor:
        return self.head(self.backbone(batch) * self.scale).square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = (p for p in self.parameters() if p.requires_grad and p is not self.scale)
        return torch.optim.SGD(trained, lr=0.1, momentum=0.9)


class Unfreezes(BackboneFinetuning):
    """Train the backbone from the second epoch on, its batch norm included."""

    def __init__(self) -> None:
        super().__init__(unfreeze_backbone_at_epoch=1)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone, train_bn=False)


class Freezes(Callback):
    """Freeze a part of the backbone and its statistics from the second epoch on, by hand."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            pl_module.backbone[0].requires_grad_(False)
            pl_module.backbone.eval()


class AddsGroup(Callback):
    """Train the head from the second epoch on, in a parameter group of its own."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.head.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.optimizers[0].add_param_group({"params": [pl_module.scale]})  # after a resume as well

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            pl_module.head.requires_grad_(True)
            trainer.optimizers[0].add_param_group({"params": list(pl_module.head.parameters()), "lr": 0.01})


class Accumulates(GradientAccumulationScheduler):
    """Accumulate over two batches from the second epoch on."""

    def __init__(self) -> None:
        super().__init__({1: 2})


OVERRIDES = (
    *pair(f"{HERE}.Finetuned", NUMBERS), "objective={metric: val/loss, mode: min}", "trainer.max_epochs=3",
)  # fmt: skip
UNFREEZES = (f"+callbacks.unfreezes._target_={HERE}.Unfreezes", f"+callbacks.accumulates._target_={HERE}.Accumulates")
FREEZES = (f"+callbacks.freezes._target_={HERE}.Freezes", f"+callbacks.adds._target_={HERE}.AddsGroup")


@pytest.mark.parametrize(
    (
        "callbacks",
        "numbers",
    ),  # in the second epoch, and in its validation; accumulation has looks at two of four batches
    [(UNFREEZES, (10, 12)), (FREEZES, (12, 14))],
)
def test_what_callbacks_have_changed_stays_changed(
    callbacks: tuple[str, ...], numbers: tuple[int, ...], tmp_path: Path
) -> None:
    whole, config = new_run(tmp_path / "whole", *OVERRIDES, *callbacks)
    train_until(whole, config, None)
    modules = read_checkpoint(whole.last)["litlab"]["modules"]
    assert all(modules["requires_grad"].values()) == all(modules["training"].values()) == (callbacks == UNFREEZES)
    for number in numbers:
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *OVERRIDES, *callbacks)
        assert differences(outcome(whole), outcome(run)) == []
    longer, shorter = new_run(tmp_path / "longer", *OVERRIDES, *callbacks, "trainer.max_epochs=2")
    train_until(longer, shorter, None)
    train_until(longer, config, None)
    left, right = read_checkpoint(whole.last), read_checkpoint(longer.last)
    assert differences(left["optimizer_states"], right["optimizer_states"]) == []
    assert outcome(whole)["result"] == outcome(longer)["result"]
    assert right["litlab"]["modules"] == modules


class FineTunes(BackboneFinetuning):
    """Lightning's callback as it is, for a short run."""

    def __init__(self) -> None:
        super().__init__(unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.01)


@pytest.mark.integrations
@pytest.mark.parametrize("schedule", ["~schedule", "schedule=one_cycle"])
def test_the_backbone_of_our_task_is_fine_tuned_from_other_weights(
    schedule: str, tiny_run: RunDirectory, tmp_path: Path
) -> None:
    overrides = (
        *TINY, "trainer.max_epochs=3", f"init_from={tiny_run.path}", schedule,
        f"+callbacks.fine_tunes._target_={HERE}.FineTunes",
    )  # fmt: skip
    whole, config = new_run(tmp_path / "whole", *overrides)
    num_looks = train_until(whole, config, None)
    start, end = read_checkpoint(tiny_run.best)["state_dict"], read_checkpoint(whole.last)
    assert len(end["optimizer_states"][0]["param_groups"]) == 3
    assert not torch.equal(start["network.features.0.weight"], end["state_dict"]["network.features.0.weight"])
    result = read_result(whole)
    assert result["trainable_parameters"] == result["parameters"]
    assert num_looks is not None
    for number in (num_looks // 6, num_looks // 2, num_looks - 2):
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *overrides)
        assert differences(outcome(whole), outcome(run)) == []


class FailsOnce(Callback):
    """Fail after the backbone was unfrozen, in the middle of an epoch, unless it has failed before."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        mark = Path(trainer.default_root_dir) / f"failed-{trainer.global_rank}"
        if trainer.global_step == 16 and not mark.exists():
            mark.touch()
            raise RuntimeError("on purpose")


@pytest.mark.integrations
def test_two_ranks_average_the_gradients_of_what_was_unfrozen_or_frozen(tmp_path: Path, litlab: Command) -> None:
    """DDP knows only what was trained when it wrapped the task, and expects a gradient of all of it."""
    tests = str(Path(__file__).parents[1])
    overrides = (
        *TINY, "trainer.max_epochs=3", "checkpoint.every_steps=7", "data.val_size=40",
        f"+callbacks.fine_tunes._target_={HERE}.FineTunes",
        "task.freeze=[classifier.2.bias]", "task.freeze_after_epochs=1",
    )  # fmt: skip
    done = {
        name: litlab("train", *overrides, *more, f"hydra.run.dir={tmp_path / name}", PYTHONPATH=tests)
        for name, more in {
            "one": (),
            "two": ("trainer.devices=2",),
            "failed": ("trainer.devices=2", f"+callbacks.fails._target_={HERE}.FailsOnce"),
        }.items()
    }
    assert [process.returncode for process in done.values()] == [0, 0, 1], done["two"].stderr
    resumed = litlab("resume", str(tmp_path / "failed"), PYTHONPATH=tests)
    assert resumed.returncode == 0, resumed.stderr
    ends = [read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in done]
    frozen = [name for name, is_trained in ends[1]["litlab"]["modules"]["requires_grad"].items() if not is_trained]
    assert frozen == ["network.classifier.2.bias"]
    one, two, failed = (end["state_dict"] for end in ends)
    assert differences(two, failed) == []
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


class UnfreezesLate(FineTunes):
    """Unfreeze the backbone at a step in the middle of the second epoch."""

    def finetune_function(self, *_: object) -> None:
        pass

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == 13:
            self.unfreeze_and_add_param_group(pl_module.backbone, trainer.optimizers[0], lr=0.01)


def test_two_ranks_refuse_to_unfreeze_within_an_epoch(tmp_path: Path, litlab: Command) -> None:
    """DDP would not average these gradients before the next epoch, and the ranks would differ from then on."""
    overrides = (*TINY, "trainer.devices=2", f"+callbacks.late._target_={HERE}.UnfreezesLate")
    tests = str(Path(__file__).parents[1])
    done = litlab("train", *overrides, f"hydra.run.dir={tmp_path / 'run'}", PYTHONPATH=tests)
    assert done.returncode == 1
    assert "unfrozen within epoch 2, but on several devices DDP" in done.stderr
    assert "network.features.0.weight, " in done.stderr
    assert "Traceback" not in done.stderr + (tmp_path / "run" / "run.log").read_text()
