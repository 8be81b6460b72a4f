"""Data modules of a user's own under litlab's task: what they tell of the data, and pairs as batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from support import pairs
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.pairs import Pairs
from support.runs import Command, train_here

from litlab.errors import UserError
from litlab.models.cnn import CNN
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result
from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.build import assemble, build_callbacks
from litlab.training.checkpoint_io import read_network_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
SMALL = (
    "name=pairs", "model.widths=[4]", "model.hidden=[8]", "schedule=constant", "optimizer.lr=0.1", "trainer=cpu",
    "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "threads=1",
)  # fmt: skip


def small(name: str, *overrides: str, module: str = "support.pairs") -> tuple[str, ...]:
    return ("~data", f"+data._target_={module}.{name}", *SMALL, *overrides)


def evaluate(run: RunDirectory, split: str) -> dict[str, float]:
    """Compute loss and accuracy of the weights of a run over all images at once."""
    network = CNN(num_classes=len(pairs.CLASSES), image_shape=pairs.SHAPE, widths=[4], hidden=[8])
    network.load_state_dict(read_network_weights(run.last))
    images, labels = pairs.tensors(split)
    with torch.no_grad():
        logits = network.eval()(images)
    accuracy = (logits.argmax(dim=1) == labels).double().mean()
    return {f"{split}/loss": F.cross_entropy(logits, labels).item(), f"{split}/accuracy": accuracy.item()}


@pytest.mark.parametrize("name", ["Described", "Hooked"])
def test_pairs_of_a_data_module_that_tells_its_facts_train_litlabs_task(name: str, tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *small(name))
    result = read_result(run)
    assert result["steps"] == 2 * 6
    expected = evaluate(run, "val")
    assert {key: result["last"][key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert result["images_per_second"] > 0
    events = b"".join(path.read_bytes() for path in run.path.glob("events.*"))
    assert b"train/images" in events
    assert b"confusion_matrix" in events


@pytest.mark.integrations
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    overrides = small("Described", "checkpoint.every_steps=1")
    whole, config = new_run(tmp_path / "whole", *overrides)
    looks = train_until(whole, config, None)
    assert looks is not None
    for number in (3, looks // 2, looks - 2):
        resumed = stop_and_resume(tmp_path / str(number), number, *overrides)
        assert differences(outcome(whole), outcome(resumed)) == []


@pytest.mark.integrations
def test_two_ranks_with_batches_of_unequal_size_train_as_one(tmp_path: Path, litlab: Command) -> None:
    (tmp_path / "project" / "uneven.py").write_text(Path(pairs.__file__).read_text())
    overrides = small("Uneven", "trainer.max_epochs=1", "+trainer.use_distributed_sampler=false", module="uneven")
    one = train_here(tmp_path / "one", *small("Uneven", "trainer.max_epochs=1"))
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    two = RunDirectory(tmp_path / "two")
    done = litlab("train", *overrides, *ranks, f"hydra.run.dir={two.path}")
    assert done.returncode == 0, done.stderr
    assert json.loads(two.provenance.read_text())["machine"]["ranks"] == 2
    single, double = read_network_weights(one.last), read_network_weights(two.last)
    for name in single:
        torch.testing.assert_close(single[name], double[name], rtol=1e-5, atol=1e-6)
    values = [
        {row.step: row.value for row in read_metrics(run.metrics) if row.metric == "train/loss"} for run in (one, two)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_facts_come_from_the_command_line_where_the_data_module_does_not_tell_them(tmp_path: Path) -> None:
    facts = ("+model.num_classes=4", "+model.image_shape=[3,12,12]")
    run = train_here(tmp_path / "run", *small("Pairs", *facts))
    assert {key: read_result(run)["last"][key] for key in evaluate(run, "val")} == pytest.approx(evaluate(run, "val"))
    late = new_run(tmp_path / "late", *small("Late", *facts))[1]
    assert assemble(late, rank=0).facts.get("num_classes") == 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (small("Pairs"), r"^model: litlab\.models\.cnn\.CNN needs num_classes, image_shape, which Pairs does not tell: "
         r".*add \+model\.num_classes=\.\.\. \+model\.image_shape=\.\.\.$"),
        (small("Late", "+model.image_shape=[3,12,12]"), r"^data: Late\.num_classes: reading it before setup\(\) raised "
         r"TypeError: .*; set it in the constructor, or add \+model\.num_classes=\.\.\.$"),
        (small("Described", "+task.num_classes=5"), r"^task\.num_classes=5: the data have 4 classes"),
        (small("Described", "+model.num_classes=5"), r"^model\.num_classes=5: the data have 4 classes"),
        (small("Pairs", "+model.num_classes=5", "+model.image_shape=[3,12,12]", "+task.num_classes=4"),
         r"^model\.num_classes=5: the data have 4 classes"),
        (small("Miscounted", "+data.num_classes=4", "+data.class_names=[ant,bee,cow]"),
         r"^data: Miscounted\.class_names: has 3 entries, expected one for each of 4 classes$"),
        (small("Miscounted", "+data.class_counts=[20,24]", "task.class_weights=balanced"),
         r"^data: Miscounted\.class_counts: has 2 entries, expected one for each of 4 classes$"),
    ],
)  # fmt: skip
def test_facts_that_lack_or_contradict_are_refused(overrides: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    _, config = new_run(tmp_path / "run", *overrides)
    with pytest.raises(UserError, match=expected):
        build_callbacks(config, assemble(config, rank=0).facts)


def test_a_network_that_needs_training_images_is_refused(tmp_path: Path) -> None:
    _, config = new_run(tmp_path / "run", "~data", "+data._target_=support.pairs.Described", "model=whitened", "name=x")
    with pytest.raises(UserError, match=r"^model: WhitenedCNN initializes itself from training images, which only a"):
        assemble(config, rank=0)


class Loading(ImageClassifier):
    """Task with loaders of its own."""

    train_dataloader = Pairs.train_dataloader
    val_dataloader = Pairs.val_dataloader
    test_dataloader = Pairs.test_dataloader
    _batch_size, _shuffle = 8, True


def test_a_subclass_of_the_task_with_loaders_of_its_own_takes_pairs(tmp_path: Path) -> None:
    facts = ("+model.num_classes=4", "+model.image_shape=[3,12,12]")
    run = train_here(tmp_path / "run", "~data", f"task._target_={__name__}.Loading", *SMALL, *facts)
    assert {key: read_result(run)["last"][key] for key in evaluate(run, "val")} == pytest.approx(evaluate(run, "val"))


class Blackening(ImageClassifier):
    """Task that augments pairs on their device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = batch
        return images * 0, labels


class Names(Callback):
    """Callback that needs a fact."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names


def test_a_callback_of_the_users_own_that_needs_an_unknown_fact_is_refused(tmp_path: Path) -> None:
    facts = ("+model.num_classes=4", "+model.image_shape=[3,12,12]")
    _, config = new_run(tmp_path / "run", *small("Pairs", *facts, f"+callbacks.names._target_={__name__}.Names"))
    experiment = assemble(config, rank=0)
    with pytest.raises(
        UserError, match=r"^callbacks\.names: .*Names needs class_names, .*\+callbacks\.names\.class_nam"
    ):
        build_callbacks(config, experiment.facts)
    config["callbacks"]["names"]["class_names"] = list("abcd")
    built = build_callbacks(config, experiment.facts)
    assert [callback.class_names for callback in built if isinstance(callback, Names)] == [tuple("abcd")]
    assert "ConfusionMatrix" not in [type(callback).__name__ for callback in built]


def test_facts_that_lack_without_a_data_module_name_the_task(tmp_path: Path) -> None:
    loading = ("~data", f"task._target_={__name__}.Loading", *SMALL, "+model.image_shape=[3,12,12]")
    _, config = new_run(tmp_path / "run", *loading)
    expected = r"^model: .*CNN needs num_classes, .* of the data of .*\.Loading \(data=null\): add \+model\.num_classes"
    with pytest.raises(UserError, match=expected):
        assemble(config, rank=0)
    config["task"]["num_classes"] = 2.5
    with pytest.raises(UserError, match=r"^num_classes of network or task: found 2\.5, .*; correct it"):
        assemble(config, rank=0)


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer` in")
@pytest.mark.parametrize(("data", "is_black"), [("Described", True), ("Hooked", False)])
def test_a_hook_of_the_task_gets_pairs_where_the_data_module_has_none(
    data: str, is_black: bool, tmp_path: Path
) -> None:
    run = train_here(tmp_path / "run", *small(data), f"task._target_={__name__}.Blackening", "trainer.max_epochs=1")
    network = CNN(num_classes=len(pairs.CLASSES), image_shape=pairs.SHAPE, widths=[4], hidden=[8])
    network.load_state_dict(read_network_weights(run.last))
    images, labels = pairs.tensors("val")
    with torch.no_grad():
        loss = F.cross_entropy(network.eval()(images * (not is_black)), labels).item()
    assert read_result(run)["last"]["val/loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dict", "the data module yields a dict of image, label; ImageClassifier takes pairs of images"),
        ("tensor", r"the data module yields a tensor of shape \(8, 3, 12, 12\)"),
        ("three", r"the data module yields a list of a tensor of .*, a tensor of .*, a tensor of shape \(8,\);"),
        ("one-hot", r"a tensor of shape \(8, 4\); ImageClassifier takes pairs"),
        (
            "uint8",
            "the data module yields images of torch.uint8 and labels of torch.int64; .* normalized images as float",
        ),
        ("float", "the data module yields images of torch.float32 and labels of torch.float32"),
        ("from one", "the data module yields the label 4, but the task has 4 classes: expected labels from 0 to 3"),
        ("gray", "the images of Odd have the shape 1x12x12, but image_shape, for which CNN was built, is 3x12x12 "),
    ],
)
def test_batches_that_are_no_pairs_are_refused(kind: str, expected: str, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *small("Odd", f"+data.kind={kind}"))
    with pytest.raises(UserError, match=expected):
        train_until(run, config, None)
