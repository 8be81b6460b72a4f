"""A LightningModule and a data module that know nothing of litlab, trained by config alone."""

from pathlib import Path

from support.runs import Command

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

BORING = "lightning.pytorch.demos.boring_classes"
PAIR = (
    "~model", "~optimizer", "~schedule", "objective=null", "name=boring",
    "~data", f"+data={{_target_: {BORING}.BoringDataModule}}",
    "~task", f"+task={{_target_: {BORING}.BoringModel}}",
    "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=20", "threads=1",
)  # fmt: skip


def test_a_demo_pair_of_lightning_trains_and_is_tested(tmp_path: Path, litlab: Command) -> None:
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *PAIR, f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 2, 128)
    assert (result["objective"], result["images_per_second"]) == (None, None)
    assert result["parameters"] == 32 * 2 + 2
    assert result["seconds"]["test"] > 0
    assert run.last.exists()
    assert not run.best.exists()
    assert not run.dataset.exists(), "there are no facts to tell"
    assert {row.value for row in read_metrics(run.metrics) if row.metric == "lr"} == {0.1, 0.1 * 0.1}
