"""Classes of the config that can't be built are refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from support.runs import TINY, compose_config
from torch import Tensor, nn

from litlab.data.dataset_info import DatasetInfo
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.training import build
from litlab.training.build import (
    Facts,
    NodeFactory,
    assemble,
    build_loss,
    build_network,
    build_task,
    build_trainer,
    instantiate,
)


def trainer(folder: Path, **arguments: Any) -> Any:
    config = compose_config(*TINY)
    config["trainer"] |= arguments
    return build_trainer(config, RunDirectory(folder), None, devices=1, callbacks=[], loggers=[])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"strategy": "ddpp"}, "trainer: You selected an invalid strategy name: `strategy='ddpp'`"),
        ({"accelerator": "cpuu"}, "trainer: You selected an invalid accelerator name: `accelerator='cpuu'`"),
        ({"accelerator": "tpu"}, "trainer: "),  # no machine of these tests has one
    ],
)
def test_arguments_that_the_trainer_refuses(arguments: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        trainer(tmp_path, **arguments)
    assert str(refused.value).startswith(expected)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("accelerator", "gpu", "processor", "expected"),
    [
        ("cpu", None, True, "bf16-mixed"),
        ("cpu", None, False, "32-true"),
        ("cpu", True, False, "32-true"),
        ("auto", None, True, "bf16-mixed"),
        ("auto", True, False, "bf16-mixed"),
        ("auto", False, True, "32-true"),
        ("gpu", True, False, "bf16-mixed"),
        ("cuda", False, True, "32-true"),
    ],
)
def test_precision_follows_the_device(
    accelerator: str, gpu: bool | None, processor: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gpu`: None without one, else whether it has bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu or including_emulation)
    monkeypatch.setattr(build, "multiplies_bfloat16", lambda: processor)
    assert build._choose_precision(accelerator) == expected


@pytest.mark.parametrize(("max_steps", "expected"), [(None, -1), (-1, -1), (7, 7)])
def test_no_limit_of_steps(max_steps: int | None, expected: int, tmp_path: Path) -> None:
    assert trainer(tmp_path, max_steps=max_steps).max_steps == expected


class NeedsPackage:
    def __init__(self) -> None:
        import nowhere_at_all  # noqa: F401


def test_a_class_whose_package_is_not_installed_is_refused() -> None:
    target = f"{__name__}.NeedsPackage"
    with pytest.raises(UserError, match=rf"logger\.x: {target} needs a package that is not installed here: No module"):
        instantiate("logger.x", {"_target_": target})


COUNTS = (3, 4, 5)
INFO = DatasetInfo("few", ("a", "b", "c"), (1, 2, 2), (0.5,), (0.5,), "", "", 12, 0, 0, class_counts=COUNTS)


class Asks(nn.Module):
    """Loss that takes everything that litlab offers."""

    def __init__(
        self, *, reduction: str, num_classes: int, class_counts: tuple[int, ...], tau: float, inner: nn.Module | None
    ) -> None:
        super().__init__()
        self.given = (reduction, num_classes, class_counts, tau)
        self.inner = inner

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, labels[:, None])[:, 0]


def distance(logits: Tensor, labels: Tensor, *, num_classes: int, scale: float) -> Tensor:
    targets: Tensor = nn.functional.one_hot(labels, num_classes)
    return scale * (logits - targets).square().sum(dim=1)


def test_a_loss_gets_the_reduction_and_facts_of_the_data_by_name() -> None:
    inner = {"_target_": "torch.nn.CrossEntropyLoss"}
    loss = build_loss({"_target_": f"{__name__}.Asks", "tau": 0.5, "inner": inner}, Facts(INFO))
    assert isinstance(loss, Asks)
    assert loss.given == ("none", 3, COUNTS, 0.5)
    assert isinstance(loss.inner, nn.CrossEntropyLoss)
    assert loss.inner.reduction == "none"


def test_a_function_is_a_loss() -> None:
    loss = build_loss({"_target_": f"{__name__}.distance", "scale": 2.0, "_partial_": True}, Facts(INFO))
    assert loss(torch.zeros(2, 3), torch.tensor([0, 1])).tolist() == [2.0, 2.0]


class OwnModule(LightningModule):
    def __init__(self, *, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss


def test_the_reduction_is_handed_to_losses_of_litlabs_task_and_its_subclasses_alone() -> None:
    config = compose_config(*TINY)
    node = {"_target_": "torch.nn.CrossEntropyLoss"}
    own = build_task(config | {"task": {"_target_": f"{__name__}.OwnModule", "loss": node}}, None, Facts(INFO))
    assert own.loss.reduction == "mean"
    task = build_task(
        config | {"task": config["task"] | {"loss": node, "class_weights": "balanced"}}, nn.Flatten(), Facts(INFO)
    )
    assert task.loss.function.reduction == "none"
    assert task.loss.class_weights.tolist() == pytest.approx([12 / (3 * count) for count in COUNTS])


class Picky(nn.Module):
    def __init__(self, gamma: float) -> None:
        raise ValueError(f"gamma is {gamma}, expected at most 5")


def test_a_value_that_a_class_refuses_is_a_mistake_in_the_config() -> None:
    node = {"_target_": f"{__name__}.Picky", "gamma": 9.0}
    for path in ("task.loss", "task.metrics.f1", "optimizer", "schedule.schedulers.0"):
        with pytest.raises(UserError, match=rf"{path}: {__name__}\.Picky: gamma is 9.0, expected at most 5"):
            instantiate(path, node)
    with pytest.raises(ValueError, match="gamma is") as raised:  # of a network: with its traceback
        instantiate("model", {"_target_": "torch.nn.Sequential", "_args_": [node]})
    assert raised.value.__notes__ == [f"(raised by model._args_.0: {__name__}.Picky model._args_.0.gamma=9.0)"]


def test_a_value_that_an_optimizer_or_schedule_refuses_is_a_mistake_in_the_config() -> None:
    adam = {"_target_": "torch.optim.Adam", "betas": [2.0, 0.9]}
    with pytest.raises(UserError, match=r"^optimizer: torch\.optim\.Adam: Invalid beta parameter at index 0: 2\.0$"):
        NodeFactory("optimizer", adam, "params")([nn.Parameter(torch.zeros(1))])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    steps = {"_target_": "torch.optim.lr_scheduler.CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "step_size_up": 0,
             "step_size_down": 0, "cycle_momentum": False}  # fmt: skip
    with pytest.raises(UserError, match=r"^schedule: torch\.optim\.lr_scheduler\.CyclicLR: .*division by zero$"):
        NodeFactory("schedule", steps, "optimizer")(optimizer)


def test_pretrained_weights_of_torchvision_for_other_classes_are_refused() -> None:
    node = {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}
    with pytest.raises(
        UserError, match=r"^model: torchvision\.models\.resnet18: .*gets a new head by model=torchvision"
    ):
        build_network(node, Facts(given={"num_classes": 10}))


def test_networks_of_torchvision_get_the_number_of_classes() -> None:
    network = build_network({"_target_": "torchvision.models.resnet18"}, Facts(given={"num_classes": 7}))
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+task.class_counts=[1,2,3,4,5,6,7,8,9,10]",
            r"^task\.class_counts=\[1, 2, .*the data have the class_counts",
        ),
        ("+model.image_shape=[1,28,28]", r"^model\.image_shape=\[1, 28, 28\]: the data have the image_shape \[3, "),
        ("+model.num_classes=5", r"^model\.num_classes=5: the data have 10 classes; leave it out"),
    ],
)
def test_facts_that_contradict_the_data_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assemble(compose_config(*TINY, override), rank=0)
