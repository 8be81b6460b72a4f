"""Runs that start from weights: what is loaded, skipped or refused, and resumed without the source."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import pair
from support.images import write_folder
from support.runs import TINY, train_here
from support.small_fit import CLASS_NAMES, make_task
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from litlab.errors import UserError
from litlab.inference import predictor
from litlab.runs.directory import RunDirectory
from litlab.runs.initial_weights import find_weights, keep_weights
from litlab.training.checkpoint_io import read_checkpoint
from litlab.training.warm_start import WarmStart, load_initial_weights

HERE = "training.test_warm_start"
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
FOLDER = (
    "data=image_folder", "data.image_size=32", "data.batch_size=8", "data.val_size=6",
    "model.widths=[2,4]", "model.hidden=[8]",
    "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "threads=1",
)  # fmt: skip


class Net(nn.Module):
    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)


class Task(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def started(task: nn.Module, saved: Any, folder: Path) -> WarmStart:
    """Save something by torch, and load from it what fits."""
    file = folder / "weights.pt"
    torch.save(saved, file)
    run = RunDirectory.create(folder / "run", "", {})
    config = {"init_from": find_weights(str(file))}
    keep_weights(run, config)
    return load_initial_weights(run, config["init_from"], task)


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "save",
    [
        lambda state: state,
        lambda state: renamed(state, "network."),
        lambda state: renamed(state, "module."),
        lambda state: renamed(state, "_orig_mod."),
        lambda state: renamed(state, "model._orig_mod.module."),
        lambda state: renamed(state, "backbone."),
        lambda state: {"state_dict": renamed(state, "model."), "epoch": 3, "optimizer_states": [{"a": state}]},
        lambda state: {"model": state, "optimizer": {}, "args": {"lr": 0.1}},
        lambda state: {"net": renamed(state, "module."), "acc": 94.2, "epoch": 100},
        lambda state: {"model_state_dict": state},
        lambda state: {name.replace("conv.", "conv._orig_mod."): value for name, value in state.items()},
    ],
)
def test_all_of_a_network_is_found_under_the_names_that_people_save_it_with(
    save: Callable[[dict[str, Tensor]], Any], tmp_path: Path
) -> None:
    source, task = Net(), Task(Net())
    source.norm.running_mean += 1
    report = started(task, save(source.state_dict()), tmp_path)
    assert differences(task.network.state_dict(), source.state_dict()) == []
    assert (report.other_shape, report.missing, report.unused, report.fraction) == ({}, [], [], 1.0)
    assert report.describe()[0].endswith("9 of 9 tensors, 100.0 % of the parameters")


def test_what_does_not_fit_stays_new_and_is_named(tmp_path: Path) -> None:
    source, network = Net(num_classes=10).state_dict(), Net(num_classes=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    del source["norm.running_var"]
    report = started(Task(network), source | {"projection.weight": torch.zeros(2)}, tmp_path)
    after = network.state_dict()
    new = {"head.weight", "head.bias", "norm.running_var"}
    assert {name for name in after if torch.equal(after[name], before[name])} >= new
    assert differences({k: v for k, v in source.items() if k in after and k not in new}, {
        k: v for k, v in after.items() if k not in new
    }) == []  # fmt: skip
    assert report.other_shape == {"network.head.weight": "(10x4, here 3x4)", "network.head.bias": "(10, here 3)"}
    assert (report.missing, report.unused) == (["network.norm.running_var"], ["projection.weight"])
    assert report.loaded[:2] == ["network.conv.weight", "network.conv.bias"]
    lines = report.describe()
    assert "weights.pt: 6 of 9 tensors, 88.9 % of the parameters" in lines[0]
    assert lines[1].strip() == (
        "new, since of another shape: network.head.weight (10x4, here 3x4), network.head.bias (10, here 3)"
    )
    assert [line.strip() for line in lines[2:]] == [
        "new, since not in the file: network.norm.running_var", "unused: projection.weight",
    ]  # fmt: skip


class Twins(nn.Module):
    """Two networks with the same names and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.net = Net(), Net()


@pytest.mark.parametrize("prefix", ["", "module.", "model.module.", "_orig_mod.", "network."])
def test_equal_networks_inside_a_network_are_told_apart(prefix: str, tmp_path: Path) -> None:
    source, network = Twins(), Twins()
    report = started(Task(network), renamed(source.state_dict(), prefix), tmp_path)
    assert differences(network.state_dict(), source.state_dict()) == []
    assert (report.fraction, report.missing, report.unused) == (1.0, [], [])


@pytest.mark.parametrize("prefix", ["", "module.", "network."])
def test_a_tensor_of_the_file_is_loaded_once(prefix: str, tmp_path: Path) -> None:
    network, encoder = Twins(), Net()
    before = {name: value.clone() for name, value in network.net.state_dict().items()}
    report = started(Task(network), renamed(encoder.state_dict(), f"{prefix}encoder."), tmp_path)
    assert differences(network.encoder.state_dict(), encoder.state_dict()) == []
    assert differences(network.net.state_dict(), before) == []
    assert report.fraction == 0.5
    assert report.missing == [f"network.net.{name}" for name in before]


def test_a_name_that_means_two_tensors_is_refused(tmp_path: Path) -> None:
    expected = "conv.weight could be network.encoder.conv.weight and network.net.conv.weight alike; save it under one "
    with pytest.raises(UserError, match=re.escape(expected)):
        started(Task(Twins()), Net().state_dict(), tmp_path)


def test_a_lazy_module_takes_its_shape_from_the_weights(tmp_path: Path) -> None:
    source, lazy = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    assert started(lazy, source.state_dict(), tmp_path).fraction == 1.0
    assert differences(lazy.state_dict(), source.state_dict()) == []


class Shifted(nn.Module):
    """Loss that depends on the data, by a buffer."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((len(CLASS_NAMES),), shift))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits + self.shift, labels, reduction="none")


def test_the_loss_and_the_metrics_are_those_of_the_new_run(tmp_path: Path) -> None:
    """Their states follow from its data and settings, those of the old run from others."""

    def task(shift: float) -> LightningModule:
        metric = MulticlassAccuracy(len(CLASS_NAMES))
        metric.register_buffer("threshold", torch.tensor(shift))
        return make_task(loss=Shifted(shift), metrics={"recall": metric}, network=nn.Linear(4, len(CLASS_NAMES)))

    old, new = task(1.0), task(2.0)
    old.network.weight.data.fill_(7)
    report = started(new, {"state_dict": old.state_dict()}, tmp_path)
    assert torch.equal(new.network.weight, old.network.weight)
    own = {name: value for name, value in new.state_dict().items() if not name.startswith("network.")}
    assert {name.split(".")[0] for name in own} == {"loss", "val_metrics", "test_metrics"}
    assert all((value == 2).all() for value in own.values())
    assert (report.loaded, report.missing, report.fraction) == (["network.weight", "network.bias"], [], 1.0)
    assert report.unused == list(own)


@pytest.mark.integrations
def test_a_file_of_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source, network = Net(num_classes=10), Net()
    save_file(renamed(source.state_dict(), "model."), tmp_path / "weights.bin")
    run = RunDirectory.create(tmp_path / "run", "", {})
    config = {"init_from": find_weights(str(tmp_path / "weights.bin"))}
    keep_weights(run, config)
    report = load_initial_weights(run, config["init_from"], Task(network))
    assert differences(network.conv.state_dict(), source.conv.state_dict()) == []
    assert report.other_shape.keys() == {"network.head.weight", "network.head.bias"}

    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(content[:-40])
    torn = RunDirectory.create(tmp_path / "torn", "", {})
    config = {"init_from": find_weights(str(tmp_path / "torn.safetensors"))}
    keep_weights(torn, config)
    with pytest.raises(UserError, match=r"init_from=\S+/torn\.safetensors: can't be read by safetensors: "):
        load_initial_weights(torn, config["init_from"], Task(network))


class Attacks:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("attacked",)


def poisoned(name: str, value: float) -> dict[str, Tensor]:
    state = Net().state_dict()
    state[name].view(-1)[0] = value
    return state


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (Net(4, width=5).state_dict(), "none of its 9 tensors fits the network; the shapes differ: network.conv.wei"),
        (nn.LSTM(2, 2).state_dict(), "none of its 4 tensors fits the network; it has weight_ih_l0, weight_hh_l0, "),
        (nn.ModuleDict({"head": nn.Linear(4, 3)}).state_dict(), "only the last layer (network.head.weight, network.he"),
        (poisoned("conv.weight", torch.nan), "network.conv.weight holds NaN or infinity, so no training can start"),
        (poisoned("conv.bias", torch.inf), "network.conv.bias holds NaN or infinity"),
        (poisoned("norm.running_var", torch.nan), "network.norm.running_var holds NaN"),
        ({"conv.weight": Net().conv.weight.detach().to_sparse()}, "(4x3x3x3 sparse_coo, here 4x3x3x3)"),
        ({"\x1b[2Jconv": torch.zeros(1)}, "none of its 1 tensors fits the network; it has  [2Jconv, and the network "),
        (
            {"a\x1b.b": torch.zeros(1), "_orig_mod.a\x1b.b": torch.zeros(1)},
            "a .b and _orig_mod.a .b could both be a .b; save the",
        ),
        ({"epoch": 3}, "holds no weights: expected a dict of tensors, as state_dict() gives it, or one that has it un"),
        ([torch.zeros(3)], "holds no weights"),
        (Attacks(), "not a checkpoint that can be read safely: it holds posix.mkdir; if you trust the file, save"),
        (Net(), "test_warm_start.Net; if you trust the file, save its weights alone and start from those"),
        (
            renamed(Net().state_dict(), "model.") | renamed(Net().state_dict(), "module."),
            "model.conv.weight and module.conv.weight could both be network.conv.weight",
        ),
        (
            renamed(Net().state_dict(), "net.") | renamed(Net().state_dict(), "module.net."),
            "net.conv.weight and module.net.conv.weight could both be network.conv.weight",
        ),
        (
            Net().state_dict() | renamed(Net().state_dict(), "_orig_mod."),
            "conv.weight and _orig_mod.conv.weight could both be conv.weight",
        ),
    ],
)  # fmt: skip
def test_weights_that_no_training_can_start_from_are_refused(
    saved: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        started(Task(Net()), saved, tmp_path)
    assert str(refused.value).startswith("init_from=weights.pt: ")
    assert expected in str(refused.value)
    assert str(refused.value).isprintable()
    assert not Path("attacked").exists()


def test_names_of_a_file_reach_the_terminal_without_control_characters() -> None:
    skipped = WarmStart("weights.pt", "0", ["a"], 0.5, other_shape={}, missing=["b"], unused=["\x1b[2Jc"])
    assert skipped.describe()[1:] == [
        "             new, since not in the file: b",
        "             unused:  [2Jc",
    ]


def test_infinity_in_a_mask_is_not_refused(tmp_path: Path) -> None:
    network = Net()
    network.register_buffer("mask", torch.full((3,), -torch.inf))
    assert started(Task(network), network.state_dict(), tmp_path).fraction == 1.0


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_damaged_copy_is_refused(damage: str, tmp_path: Path) -> None:
    started(Task(Net()), Net().state_dict(), tmp_path)
    run = RunDirectory(tmp_path / "run")
    init = find_weights(str(tmp_path / "weights.pt"))
    run.initial_weights.unlink()
    if damage == "changed":
        torch.save(Net().state_dict(), run.initial_weights)
    expected = "is damaged: its hash is not the one in config.yaml" if damage == "changed" else "is missing"
    with pytest.raises(UserError, match=f"initial_weights {expected}; it is a copy of "):
        load_initial_weights(run, init, Task(Net()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of three classes."""
    root = tmp_path_factory.mktemp("images") / "animals"
    write_folder(root)
    return root


@pytest.fixture
def pretrained(tiny_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Copy a run on ten classes, to be removed."""
    return RunDirectory(Path(shutil.copytree(tiny_run.path, tmp_path / "pretrained")))


def test_fine_tuning_on_other_classes_is_exact_without_the_source(
    pretrained: RunDirectory, folder: Path, tmp_path: Path
) -> None:
    overrides = (
        *FOLDER, f"data.root={folder}", f"init_from={pretrained.path}", "task.freeze=['features']", "callbacks=ema",
    )  # fmt: skip
    whole, config = new_run(tmp_path / "whole", *overrides)
    stopped = [new_run(tmp_path / f"stopped-{number}", *overrides)[0] for number in (1, 4)]
    started_from = read_checkpoint(pretrained.best)["state_dict"]
    shutil.rmtree(pretrained.path)

    train_until(whole, config, None)
    for number, run in zip((1, 4), stopped, strict=True):  # before there is a checkpoint, and after
        assert train_until(run, config, number) is None
        train_until(run, config, None)
        assert differences(outcome(whole), outcome(run)) == []
    recorded = whole.read_json(whole.provenance)["init_from"]
    assert recorded["path"] == str(pretrained.best)
    assert recorded["sha256"] == config["init_from"]["sha256"]
    assert recorded["other_shape"].keys() == {"network.classifier.2.weight", "network.classifier.2.bias"}
    trained = read_checkpoint(whole.last)["state_dict"]
    assert differences(
        {name: value for name, value in trained.items() if "features" in name},
        {name: value for name, value in started_from.items() if "features" in name},
    ) == []  # fmt: skip
    assert not torch.equal(trained["network.classifier.0.weight"], started_from["network.classifier.0.weight"])
    assert predictor.load(whole.path).class_names == ("cat", "dog", "emu")


def test_a_run_starts_with_the_weights_of_another(pretrained: RunDirectory, tmp_path: Path) -> None:
    """At a learning rate of almost zero, they are still there at the end, and so is their accuracy."""
    run = train_here(tmp_path / "run", *TINY, f"init_from={pretrained.path}", "optimizer.lr=1e-30", "seed=5")
    before, after = (read_checkpoint(path)["state_dict"] for path in (pretrained.best, run.last))
    assert differences(before, after) == []


class Foreign(LightningModule):
    """A module whose network has another name than litlab's."""

    def __init__(self, *, num_outputs: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, num_outputs))

    def training_step(self, batch: Tensor) -> Tensor:
        return self.model(batch).square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_foreign_module_starts_from_its_own_checkpoint_or_a_state_dict(tmp_path: Path) -> None:
    overrides = (
        *pair(f"{HERE}.Foreign", "support.foreign.Numbers"), "objective={metric: val/loss, mode: min}",
        "trainer.max_epochs=1",
    )  # fmt: skip
    first = train_here(tmp_path / "first", *overrides, "+task.num_outputs=2")
    state = read_checkpoint(first.last)["state_dict"]
    torch.save({name.removeprefix("model."): value for name, value in state.items()}, tmp_path / "model.pth")
    for source in (first.path, tmp_path / "model.pth"):
        overrides_of_second = (*overrides, "+task.num_outputs=5", f"init_from={source}")
        run = stop_and_resume(tmp_path / f"from-{source.name}", 3, *overrides_of_second)
        recorded = run.read_json(run.provenance)["init_from"]
        assert recorded["loaded"] == ["model.0.weight", "model.0.bias"]
        assert recorded["other_shape"].keys() == {"model.2.weight", "model.2.bias"}
