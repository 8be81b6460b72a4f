"""Two real processes log and draw what one does."""

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from numpy.typing import NDArray
from support.classification_metrics import reference_values, torchmetrics_of_the_reference
from support.small_fit import CLASS_NAMES, NORMALIZATION, NUM_TEST, Batches, Rows, Shown, make_task, make_trainer
from support.warm import WarmProcess
from torch import Tensor
from torch.nn import MultiMarginLoss

from litlab.callbacks.class_accuracy import ClassAccuracy
from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.images import WorstMistakes
from litlab.callbacks.reliability_diagram import ReliabilityDiagram
from litlab.callbacks.training_log import TrainingLog

# A loss that fails for a batch without images, and weights of classes.
LOSS = {
    "loss": MultiMarginLoss(reduction="none"),
    "class_weights": [1.0, 2.0, 0.5, 1.0, 4.0, 1.0],
    "class_counts": [3, 4, 3, 2, 5, 4],
}


def fit_and_test(monkeypatch: pytest.MonkeyPatch, rank: int = 0, world_size: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the rows, weights and pictures of this rank.

    Of 21 images, rank 0 has four real rows in the last batch and rank 1 has one; of 17, rank 1 has none. In a last
    validation of a single image, rank 1 has none at all.
    """
    metrics = torchmetrics_of_the_reference(len(CLASS_NAMES))
    rows, task, shown = Rows(), make_task(metrics=metrics, **LOSS), Shown(monkeypatch)
    pictures = [picture(class_names=CLASS_NAMES) for picture in (ConfusionMatrix, ClassAccuracy, ReliabilityDiagram)]
    callbacks = [TrainingLog(), WorstMistakes(num_images=6, **NORMALIZATION), *pictures]
    trainer = make_trainer([rows], callbacks, max_epochs=2, log_every_n_steps=2, **changes)
    fit, val, test = (Batches(size, rank=rank, world_size=world_size) for size in (21, 17, NUM_TEST))
    trainer.fit(task, fit, val)
    trainer.test(task, test, verbose=False)
    logged = list(rows.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # most classes have no image
        (alone,) = trainer.validate(task, Batches(1, rank=rank, world_size=world_size), verbose=False)
    return {
        "alone": alone,
        "rows": logged,
        "counts": [counts.tolist() for counts in [*shown.counts, *shown.confusions]],
        "bins": [[values.tolist() for values in bins[1:]] for bins in shown.bins],
        "captions": [captions for _, captions in shown.sheets],
        "weights": task.network.state_dict(),
    }


def run_rank(folder: Path) -> None:
    """Run one rank of two and save its results."""
    rank = rank_zero_only.rank = int(os.environ["RANK"])  # Lightning reads it when it is imported, which was before
    with pytest.MonkeyPatch.context() as monkeypatch:
        result = fit_and_test(monkeypatch, rank, 2, devices=2, strategy="ddp", use_distributed_sampler=False)
    torch.save(result, folder / f"rank{rank}.pt")


def run_two_ranks(folder: Path) -> list[dict[str, Any]]:
    """Run `fit_and_test` in two processes and return the results of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    common["PYTHONPATH"] = os.pathsep.join(sys.path)
    files, processes = [folder / f"errors{rank}" for rank in range(2)], []
    for rank, file in enumerate(files):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = ["callbacks.test_two_ranks", str(folder)]
        processes.append(WarmProcess(command, folder, stderr=file, environment=environment))
    codes = [process.wait(120) for process in processes]
    errors = [file.read_text() for file in files]
    assert codes == [0, 0], "\n".join(errors)
    assert "sync_dist" not in errors[0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def predictions(weights: dict[str, Tensor]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compute the probabilities of all 17 validation images at once; return them with the labels."""
    task, val = make_task(), Batches(17)
    task.network.load_state_dict(weights)
    with torch.no_grad():
        return task.eval()(val.images).softmax(dim=1).numpy(), val.labels.numpy()


def last_validation(rows: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    return {name.removeprefix("val/"): value for _, row in rows for name, value in row.items() if name[:4] == "val/"}


def test_two_ranks_log_and_draw_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two, other = run_two_ranks(tmp_path)
    one = fit_and_test(monkeypatch)
    assert [step for step, _ in two["rows"]] == [step for step, _ in one["rows"]]
    for (_, row), (_, expected) in zip(two["rows"], one["rows"], strict=True):
        assert row.keys() == expected.keys()
        assert all(row[name] == pytest.approx(expected[name], abs=1e-6) for name in row if "second" not in name)
    assert (two["counts"], two["captions"]) == (one["counts"], one["captions"])
    assert (other["counts"], other["bins"], other["captions"]) == ([], [], [])
    for bins, expected in zip(two["bins"], one["bins"], strict=True):
        assert bins[:2] == expected[:2]
        assert bins[2] == pytest.approx(expected[2], rel=1e-5)
    assert len(two["bins"]) == 2

    assert two["alone"] == other["alone"] == pytest.approx(one["alone"], rel=1e-5)
    values = last_validation(two["rows"])
    for name, value in reference_values(*predictions(two["weights"])).items():
        assert values[name] == pytest.approx(value, rel=1e-5), name
    for key, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
