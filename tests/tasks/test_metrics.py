"""Metrics of training and evaluation, and metrics of one's own from the config to every display."""

import csv
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.classification_metrics import reference_values, torchmetrics_of_the_reference
from support.runs import TINY, call_litlab
from support.small_fit import BATCH_SIZE, CLASS_NAMES, Batches, Rows, make_task, make_trainer
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassF1Score, MulticlassRecall

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric as MetricInfo
from litlab.runs.metrics import read_metric_table, read_metrics
from litlab.runs.result import read_result
from litlab.tasks import metrics
from litlab.tasks.metrics import EvaluationMetrics, LossAndAccuracy, TrainingMetrics
from litlab.training.train_state import find_metrics, get_metrics_state, set_metrics_state

Step = tuple[Tensor, Tensor, Tensor]


def steps(number: int) -> list[Step]:
    generator = torch.Generator().manual_seed(6)
    sizes = torch.randint(0, 40, (number,), generator=generator).tolist()  # of one rank's real rows: none, too
    return [
        (
            torch.rand(size, generator=generator) * 3,
            torch.randn(size, 5, generator=generator),
            torch.randint(0, 5, (size,), generator=generator),
        )
        for size in sizes
    ]


def sum_directly(batches: list[Step]) -> tuple[float, float]:
    """One by one, in float32."""
    loss_sum = torch.zeros(())
    for losses, _, _ in batches:
        loss_sum += losses.sum()
    correct = sum(int((logits.argmax(1) == labels).sum()) for _, logits, labels in batches)
    number = sum(len(labels) for _, _, labels in batches)
    return (loss_sum / number).item(), correct / number


def values(metric: TrainingMetrics) -> tuple[float, float]:
    computed = metric.compute()
    return computed["loss"].item(), computed["accuracy"].item()


@pytest.mark.parametrize("limit", [1, 7, 10**6])
def test_values_do_not_depend_on_when_batches_are_added(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PENDING_BATCHES", limit)
    metric, all_steps = TrainingMetrics(), steps(60)
    for start, end in pairwise([0, 1, 20, 60]):
        for step in all_steps[start:end]:
            metric.update(*step)
        loss, accuracy = values(metric)
        expected = sum_directly(all_steps[:end])
        assert loss == expected[0]
        assert accuracy == pytest.approx(expected[1], rel=1e-6)
    metric.reset()
    metric.update(*all_steps[3])
    assert values(metric)[0] == sum_directly(all_steps[3:4])[0]


def test_number_of_pending_logits_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PENDING_LOGITS", 100)
    metric = LossAndAccuracy()
    for _ in range(9):
        metric.update_later(torch.ones(8), torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))
        assert len(metric._pending) * 40 <= 100
    metric.flush()
    assert metric.num_images == 72


def test_pending_batches_hold_no_graph() -> None:
    metric, weight = LossAndAccuracy(), torch.ones(8, 5, requires_grad=True)
    logits = weight * 2
    metric.update_later(logits.sum(1), logits, torch.zeros(8, dtype=torch.int64))
    assert not any(tensor.requires_grad for tensor in metric._pending[0])
    metric.flush()
    assert not metric.loss_sum.requires_grad


def test_pending_batches_are_in_a_checkpoint() -> None:
    metric, other, all_steps = TrainingMetrics(), TrainingMetrics(), steps(30)
    for step in all_steps[:10]:
        metric.update(*step)
    set_metrics_state(find_metrics(other), get_metrics_state(find_metrics(metric)))
    for step in all_steps[10:]:
        metric.update(*step)
        other.update(*step)
    assert values(other) == values(metric)
    assert values(metric)[0] == sum_directly(all_steps)[0]


MODULE = '''
from torchmetrics.classification import MulticlassF1Score

class F1(MulticlassF1Score):
    """Macro F1, for people in percent."""
    unit = "%"

class Miss(MulticlassF1Score):
    """Lower is better, in images."""
    unit, higher_is_better = "images", False
'''
METRICS = "+task.metrics={f1: {_target_: my.F1}, miss: {_target_: my.Miss, average: micro}}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "my.py").write_text(MODULE)
    arguments = ("train", "-m", *TINY, METRICS, "objective={metric: val/f1, mode: max}", "optimizer.lr=0.1,0.001")
    command = call_litlab(folder, *arguments, "study.name=s", "name=f1", "hydra.launcher.jobs=1")
    assert command.returncode == 0, command.stdout + command.stderr
    return folder


def runs(project: Path) -> list[RunDirectory]:
    return [RunDirectory(path.parent) for path in sorted(project.glob("outputs/s/*/result.json"))]


def test_unit_direction_and_bounds_are_recorded(project: Path) -> None:
    table = read_metric_table(runs(project)[0])
    for split in ("val", "test"):
        assert table[f"{split}/f1"] == MetricInfo(f"{split}/f1", unit="%", mode="max", bounds=(0.0, 1.0))
        assert table[f"{split}/miss"] == MetricInfo(f"{split}/miss", unit="images", mode="min", bounds=(0.0, 1.0))
    assert table["val/accuracy"] == MetricInfo("val/accuracy", unit="%", mode="max", bounds=(0.0, 1.0))
    assert table["train/loss"].mode == "min"


def test_custom_metric_is_the_objective(project: Path) -> None:
    for run in runs(project):
        values = [row.value for row in read_metrics(run.metrics) if row.metric == "val/f1"]
        assert len(values) == 2
        result = read_result(run)
        assert result["objective"] == result["best"]["val/f1"] == max(values)
        assert 0 <= result["test"]["test/f1"] <= 1


def test_console_shows_the_unit(project: Path) -> None:
    (run, _) = runs(project)
    log, result = run.log.read_text(), read_result(run)
    assert re.search(r"validation  loss .* calibration error \d\.\d+  f1 \d+\.\d\d %  miss \d\.\d{4} images", log)
    assert f"f1 {100 * result['last']['val/f1']:.2f} %" in log


@pytest.mark.parametrize(("name", "header", "direction"), [("f1", "(%)", "higher"), ("miss", "(images)", "lower")])
def test_compare_by_a_custom_metric(project: Path, name: str, header: str, direction: str) -> None:
    command = call_litlab(project, "compare", "outputs/s", "--metric", f"val/{name}", "--format", "csv")
    assert command.returncode == 0, command.stderr
    values = [float(row[f"val/{name} mean"]) for row in csv.DictReader(command.stdout.splitlines())]
    recorded = [read_result(run)["best"][f"val/{name}"] for run in runs(project)]
    assert values == sorted(recorded, reverse=direction == "higher")
    table = call_litlab(project, "compare", "outputs/s", "--metric", f"val/{name}").stdout
    assert f"val/{name} {header}" in table
    assert f"({direction} is better)" in table
    assert (f"{100 * values[0]:.2f}" if name == "f1" else f"{values[0]:.4f}"[:5]) in table


def test_custom_metric_counts_the_real_rows_of_all_batches() -> None:
    rows, data = Rows(), Batches(21)
    task = make_task(metrics={"f1": MulticlassF1Score(len(CLASS_NAMES))})
    make_trainer([rows], [], max_epochs=1).fit(task, Batches(BATCH_SIZE), data)
    with torch.no_grad():
        expected = MulticlassF1Score(len(CLASS_NAMES))(task.eval()(data.images), data.labels)
    assert rows.values("val/f1") == {1: pytest.approx(expected.item(), rel=1e-6)}


class Vector(Metric):
    def update(self, logits: Tensor, labels: Tensor) -> None:
        pass

    def compute(self) -> Tensor:
        return torch.zeros(3)


class Needy(Vector):
    def update(self, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        pass


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Vector(), r"compute\(\) returned a tensor of shape \(3,\), expected a single number"),
        (MulticlassRecall(len(CLASS_NAMES), average=None), r"returned a tensor of shape \(6,\).* with average=macro"),
        (MulticlassRecall(3), "MulticlassRecall failed on the predictions for 8 images and 6 classes: "),
        (
            Needy(),
            r"Needy failed .*missing 1 required .* 'weights'. Expected `update\(preds, target\)`",
        ),
        (0.5, r"expected a torchmetrics\.Metric, got a float"),
        (MetricCollection([]), r"expected a torchmetrics\.Metric, got a MetricCollection"),
    ],
)
def test_metrics_that_cannot_be_used_are_refused_before_the_training(metric: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"task\.metrics\.f1: .*{message}"):
        make_task(metrics={"f1": metric})


class Reads(Metric):
    """Remember what it is updated with."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", [])

    def compute(self) -> int:
        return len(self.seen)


class ReadsLogits(Reads):
    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.seen.append(logits)


class ReadsProbabilities(Reads):
    def update(self, preds: Tensor, target: Tensor) -> None:
        self.seen.append(preds)


class BatchMeans(Reads):
    """Keep a single number of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("means", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.means.append(preds.mean())


def test_a_rank_without_images_has_lists_that_others_can_be_gathered_with() -> None:
    metrics = EvaluationMetrics(num_classes=3, metrics={"means": BatchMeans(), "seen": ReadsProbabilities()})
    metrics.update(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    means, seen = metrics.custom
    assert [value.shape for value in means.means] == [(0,)]
    assert [value.shape for value in seen.seen] == [(0, 3)]


def test_a_metric_gets_probabilities_unless_it_asks_for_logits() -> None:
    """Logits between 0 and 1, which torchmetrics would take for probabilities in some batches and not in others."""
    metrics = EvaluationMetrics(num_classes=3, metrics={"keys": ReadsLogits(), "train": ReadsProbabilities()})
    logits, labels = torch.tensor([[0.2, 0.9, 0.1]]), torch.tensor([1])
    metrics.update(torch.zeros(1), logits, labels)
    takes_logits, takes_probabilities = metrics.custom
    assert torch.equal(takes_logits.seen[0], logits)
    assert torch.equal(takes_probabilities.seen[0], logits.softmax(dim=1))
    values = metrics.compute()
    assert values["keys"] == values["train"] == 1.0
    assert values["keys"].is_floating_point()


def test_torchmetrics_of_batches_equal_references_in_numpy() -> None:
    rows, data = Rows(), Batches(29)  # five in the last batch of eight
    task = make_task(metrics=torchmetrics_of_the_reference(len(CLASS_NAMES)))
    make_trainer([rows], [], max_epochs=1).fit(task, Batches(BATCH_SIZE), data)
    with torch.no_grad():
        probabilities = task.eval()(data.images).softmax(dim=1).numpy()
    for name, expected in reference_values(probabilities, data.labels.numpy()).items():
        assert rows.values(f"val/{name}") == {1: pytest.approx(expected, rel=1e-5)}, name


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("+task.metrics.loss._target_=my.F1", "task.metrics.loss.*: loss is a built-in metric"),
        ("+task.metrics.f1._target_=my.F2", "task.metrics.f1._target_: my.F2: my has no 'F2'"),
        (
            "+task.metrics.f1={_target_: my.F1, averag: macro}",
            "task.metrics.f1.averag: my.F1 takes no argument 'averag'; did you mean average",
        ),
        ("+task.metrics.f1={_target_: my.F1, average: mean}", "task.metrics.f1: my.F1: Expected argument `average` to"),
        ("+task.metrics.f1={average: macro}", "task.metrics.f1.*_target_: names the class to build"),
    ],
)
def test_errors_of_the_config_come_before_the_run(project: Path, metrics: str, message: str) -> None:
    command = call_litlab(project, "train", *TINY, metrics)
    assert command.returncode != 0
    assert re.search(message, command.stderr), command.stderr
