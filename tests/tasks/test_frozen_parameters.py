"""Frozen parameters: which, what they do to norms and the optimizer, and what is refused."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from lightning.pytorch.strategies import FSDPStrategy
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.runs import TINY
from support.small_fit import CLASS_NAMES, Batches, make_task, make_trainer
from torch import nn

from litlab.errors import UserError
from litlab.runs.result import read_result
from litlab.tasks.frozen_parameters import count_parameters, find_backbone
from litlab.training.checkpoint_io import read_checkpoint

RESNET = ("model=resnet18", "model.width=2", "trainer.max_epochs=1", "data.num_train=100")


def make_network() -> nn.Module:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.5))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, len(CLASS_NAMES)))
    return nn.Sequential(body, head)


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        ([], {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias", "1.2.weight", "1.2.bias", "1.3.weight", "1.3.bias"}),
        (["0"], {"1.2.weight", "1.2.bias", "1.3.weight", "1.3.bias"}),
        ([r"0\.0", r".*\.bias$"], {"0.1.weight", "1.2.weight", "1.3.weight"}),
        ([r"(?!1\.3)"], {"1.3.weight", "1.3.bias"}),
    ],
)
def test_patterns_match_from_the_start_of_names(patterns: list[str], trained: set[str]) -> None:
    task = make_task(network=make_network(), freeze=patterns, schedule=None)
    assert {name for name, parameter in task.network.named_parameters() if parameter.requires_grad} == trained
    optimizer = task.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    in_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert in_optimizer == {id(p) for name, p in task.network.named_parameters() if name in trained}
    total, num_trained = count_parameters(task.network, task)
    assert total == 112 + 8 + 8 + 30
    assert num_trained == sum(p.numel() for name, p in task.network.named_parameters() if name in trained)


def test_a_frozen_part_computes_the_same_whatever_the_batch() -> None:
    """Its norms keep their statistics and use them, also those without parameters; others train on."""
    network = make_network()
    task = make_task(network=network, freeze=["0"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = make_trainer([], [], max_epochs=2, log_every_n_steps=1)
    trainer.fit(task, Batches(16), Batches(8))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("1.")}
    assert [module.training for module in network[0]] == [True, False, False, True]
    assert [module.training for module in network[1]] == [True] * 4
    task.eval().train()
    assert not network[0][1].training


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (
            ["features"],
            "task.freeze: 'features' matches no parameter of Sequential from the start of its name on; the n",
        ),
        (["0", "bias"], "task.freeze: 'bias' matches no parameter"),
        (
            [".*"],
            "task.freeze: all 8 parameters of Sequential would be frozen, so there is nothing to train; leave out",
        ),
        (["0", "1"], "task.freeze: all 8 parameters"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        make_task(network=make_network(), freeze=patterns)


def test_a_pattern_that_is_no_regular_expression_is_refused_at_composition(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.freeze\.0=\(: expected a regular expression; missing \)"):
        new_run(tmp_path / "run", *TINY, "task.freeze=['(']")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (make_network(), ["0"]),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))), ["0.0"]),
        (nn.Linear(2, 2), []),
    ],
)
def test_the_backbone_is_all_before_the_last_child_with_parameters(network: nn.Module, expected: list[str]) -> None:
    names = {id(module): name for name, module in network.named_modules()}
    assert [names[id(module)] for module in find_backbone(network)] == expected


def test_frozen_modules_are_no_part_of_the_backbone() -> None:
    body = nn.ModuleDict({"stem": nn.Linear(2, 2), "stages": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))})
    network = nn.Sequential(nn.ModuleDict({"body": body, "head": nn.Linear(2, 2)}))
    frozen = ["0.body.stem.weight", "0.body.stem.bias", "0.body.stages.0.weight", "0.body.stages.0.bias"]
    assert list(find_backbone(network, frozen)) == [body["stages"][1]]


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")  # norms are trained throughout
@pytest.mark.parametrize("frozen", ["0.0.", "0.1."])
def test_what_is_frozen_stays_frozen_when_the_rest_of_the_backbone_is_unfrozen(frozen: str) -> None:
    network = make_network()
    task = make_task(network=network, freeze=[re.escape(frozen)], schedule=None)
    before = {name: value.clone() for name, value in network.named_parameters()}
    callback = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.05)
    trainer = make_trainer([], [callback], max_epochs=2, log_every_n_steps=1)
    trainer.fit(task, Batches(16), Batches(8))
    expected = {name for name in before if name.startswith(frozen)}
    assert {name for name, parameter in network.named_parameters() if not parameter.requires_grad} == expected
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert not changed & expected
    assert changed & {"0.0.weight", "1.3.weight"} == {"0.0.weight", "1.3.weight"} - expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (
            [r"0\.0\.bias"],
            "task.freeze freezes a part of a Conv2d, which a callback such as BackboneFinetuning freezes",
        ),
        (
            ["0"],
            "task.freeze freezes all of Sequential but its head, so a callback such as BackboneFinetuning has noth",
        ),
    ],
)
def test_frozen_parameters_that_a_callback_would_unfreeze_are_refused(patterns: list[str], expected: str) -> None:
    task = make_task(network=make_network(), freeze=patterns)
    trainer = make_trainer([], [BackboneFinetuning(unfreeze_backbone_at_epoch=1)], max_epochs=1)
    with pytest.raises(UserError, match=re.escape(expected)):
        trainer.fit(task, Batches(16), Batches(8))
    assert trainer.global_step == 0


@pytest.mark.integrations
def test_a_run_with_a_frozen_stem_says_so_and_resumes_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*TINY[:5], *TINY[7:], *RESNET, "task.freeze=[stem,'stages\\.0']")
    whole, config = new_run(tmp_path / "whole", *overrides)
    train_until(whole, config, None)
    result = read_result(whole)
    num_frozen = 3 * 9 * 2 + 2 * 2 + 4 * (2 * 2 * 9 + 2 * 2)  # stem; two blocks of two convolutions with their norms
    assert result["parameters"] - result["trainable_parameters"] == num_frozen
    line = (
        f"network      ResNet18, {result['parameters']:,} parameters, {result['trainable_parameters']:,} of them train"
    )
    assert line in capsys.readouterr().out
    assert differences(outcome(whole), outcome(stop_and_resume(tmp_path / "stopped", 3, *overrides))) == []


class Watches(Callback):
    """Record the weights at the end of each epoch, and whether a gradient reaches the first layer of a network."""

    def __init__(self, first: nn.Module) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.reached: list[bool] = []
        first.register_forward_hook(lambda module, _, output: self.reached.append(output.requires_grad))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})


def test_parameters_are_frozen_after_so_many_epochs() -> None:
    """Neither momentum nor weight decay moves them from then on, and no gradient is computed for their layers."""
    network = make_network()
    watches = Watches(network[0][0])
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
    task = make_task(network=network, optimizer=optimizer, schedule=None, freeze=["0"], freeze_after_epochs=1)
    assert count_parameters(network, task) == (158, 158)
    trainer = make_trainer([], [watches], max_epochs=3)
    trainer.fit(task, Batches(16), Batches(8))
    first, second, third = watches.weights
    initial = make_network().state_dict()
    assert {name for name in initial if torch.equal(first[name], initial[name])} <= {"0.1.weight"}  # behind it, a norm
    for before, after in ((first, second), (second, third)):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith("1.")}
    assert [module.training for module in network[0]] == [True, False, False, True]
    assert network[0][0].weight.grad is None
    assert watches.reached == [True, True, False] + [False, False, False] * 2  # two steps and a validation an epoch


RECIPE = (
    *TINY[:5], *TINY[7:], "model=whitened", "model.widths=[4,6]", "model.convolutions=[1,1]", "optimizer=muon",
    "optimizer.weight_decay=0.01", "trainer.max_epochs=3", "callbacks=[default,ema]",
    "task.freeze=[whitening.bias]", "task.freeze_after_epochs=1",
)  # fmt: skip


@pytest.mark.integrations
def test_a_run_that_freezes_the_whitening_bias_resumes_exactly(tmp_path: Path) -> None:
    """Before, at and after the epoch in which it is frozen."""
    name = "network.whitening.bias"
    whole, config = new_run(tmp_path / "whole", *RECIPE)
    num_looks = train_until(whole, config, None)
    assert num_looks is not None
    frozen = read_checkpoint(whole.last)["litlab"]["modules"]["requires_grad"]
    assert [key for key, is_trained in frozen.items() if key.endswith("bias") and not is_trained] == [name]
    result = read_result(whole)
    biases = []
    for number in (num_looks // 6, num_looks // 3 + 1, 5 * num_looks // 6):
        run, config = new_run(tmp_path / f"stopped-{number}", *RECIPE)
        assert train_until(run, config, number) is None
        saved = read_checkpoint(run.last)
        biases.append((saved["litlab"]["epoch"], saved["litlab_ema"]["trained"][name]))
        train_until(run, config, None)
        assert differences(outcome(whole), outcome(run)) == []
        assert read_result(run)["trainable_parameters"] == result["trainable_parameters"]
    assert [epoch for epoch, _ in biases] == [0, 1, 2]
    assert not torch.equal(biases[0][1], biases[1][1])
    assert torch.equal(biases[1][1], biases[2][1])


def test_sharded_weights_cannot_be_frozen_later() -> None:
    task = make_task(network=make_network(), freeze=["0"], freeze_after_epochs=1)
    task._trainer = SimpleNamespace(strategy=object.__new__(FSDPStrategy))
    with pytest.raises(UserError, match=r"task\.freeze_after_epochs=1: works on one device or with trainer=ddp, not w"):
        task.setup("fit")
