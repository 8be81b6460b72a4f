"""Two real processes log and draw what one does."""

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from support.small_fit import CLASS_NAMES, NORMALISATION, NUM_TEST, Batches, Rows, Shown, make_task, make_trainer
from support.warm import WarmProcess
from torchmetrics.classification import MulticlassF1Score

from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.images import WorstMistakes
from litlab.callbacks.training_log import TrainingLog

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is smaller than the logging interval
]
F1 = {"f1": MulticlassF1Score(len(CLASS_NAMES), average="macro")}


def run_rank(folder: Path) -> None:
    """One rank of two; saves what rank zero was shown and logged."""
    rank = rank_zero_only.rank = int(os.environ["RANK"])  # Lightning reads it when it is imported, which was before
    rows, task = Rows(), make_task(metrics=F1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        shown = Shown(monkeypatch)
        callbacks = [
            TrainingLog(),
            WorstMistakes(num_images=6, **NORMALISATION),
            ConfusionMatrix(class_names=CLASS_NAMES),
        ]
        trainer = make_trainer(
            [rows],
            callbacks,
            devices=2,
            strategy="ddp",
            max_epochs=2,
            log_every_n_steps=2,
            use_distributed_sampler=False,
        )
        # 21 images: in the last batch, rank 0 has four real rows and rank 1 has one; of 17, rank 1 has none
        trainer.fit(task, *(Batches(size, rank=rank, world_size=2) for size in (21, 17)))
        trainer.test(task, Batches(NUM_TEST, rank=rank, world_size=2), verbose=False)
    result = {"rows": rows.rows, "counts": [counts.tolist() for counts in shown.counts]}
    result |= {"captions": [captions for _, captions in shown.sheets], "weights": task.network.state_dict()}
    torch.save(result, folder / f"rank{rank}.pt")


def test_two_ranks_log_and_draw_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    common["PYTHONPATH"] = os.pathsep.join(sys.path)
    environments = [os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    command = ["callbacks.test_two_ranks", str(tmp_path)]
    files = [tmp_path / f"errors{rank}" for rank in range(2)]
    processes = []
    for environment, file in zip(environments, files, strict=True):
        processes.append(WarmProcess(command, tmp_path, stderr=file, environment=environment))
    codes = [process.wait(120) for process in processes]
    errors_text = [file.read_text() for file in files]
    assert codes == [0, 0], "\n".join(errors_text)
    assert "sync_dist" not in errors_text[0]
    two, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))

    rows, task, shown = Rows(), make_task(metrics=F1), Shown(monkeypatch)
    callbacks = [TrainingLog(), WorstMistakes(num_images=6, **NORMALISATION), ConfusionMatrix(class_names=CLASS_NAMES)]
    trainer = make_trainer([rows], callbacks, max_epochs=2, log_every_n_steps=2)
    trainer.fit(task, Batches(21), Batches(17))
    trainer.test(task, Batches(NUM_TEST), verbose=False)

    assert [step for step, _ in two["rows"]] == [step for step, _ in rows.rows]
    for (_, row), (_, expected) in zip(two["rows"], rows.rows, strict=True):
        assert row.keys() == expected.keys()
        assert all(row[name] == pytest.approx(expected[name], abs=1e-6) for name in row if "second" not in name)
    assert two["counts"] == [counts.tolist() for counts in shown.counts]
    assert two["captions"] == [captions for _, captions in shown.sheets]
    assert (other["counts"], other["captions"]) == ([], [])
    for key, value in task.network.state_dict().items():
        torch.testing.assert_close(two["weights"][key], value, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
