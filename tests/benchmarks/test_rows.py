"""Every row of the benchmarks, on next to nothing, in this process where it can be."""

import json
import os
from pathlib import Path

import pytest
import torch
from support.runs import train_here

from benchmarks import data_path, ideal, in_memory, multirun, settings, startup, training, usual
from benchmarks.bare import RECORD, BareLoop
from litlab.config.freeze import from_yaml
from litlab.data.module import ImageDataModule
from litlab.runs.directory import RunDirectory
from litlab.training.build import assemble
from litlab.training.checkpoint_io import network_state

QUICK = settings.quick()


def test_data_path_row_counts_the_training_images_of_both() -> None:
    (row,) = data_path.rows(QUICK)

    assert (row.name, row.unit) == ("data path, batch 16", "images/s")
    assert len(row.ours) == len(row.theirs) == QUICK.num_rounds
    assert min(row.ours + row.theirs) > 0


def test_both_data_paths_yield_every_image_once_alike() -> None:
    data = data_path.prepared(*QUICK.data, "data.batch_size=16", "data.crop_padding=0", "data.flip=false")
    usual = data_path.usual_loader(data_path.PILImages(data), 16, num_workers=0)
    usual.dataset.transform.transforms[1].p = 0.0  # the flip, which is what litlab's switch switched off

    ours, theirs = (
        _in_one_order(*map(torch.cat, zip(*batches, strict=True))) for batches in (data_path.Epochs(data), usual)
    )

    assert len(ours) == 160
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def _in_one_order(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Rows of label and pixels, sorted by their contents."""
    rows = torch.cat([labels[:, None].float(), images.flatten(1)], dim=1)
    return rows[torch.argsort((rows * torch.linspace(1, 2, rows.shape[1])).double().sum(dim=1))]


def test_each_iteration_of_epochs_is_another_epoch() -> None:
    data = data_path.prepared(*QUICK.data, "data.batch_size=160")
    epochs = data_path.Epochs(data)

    (first, _), (second, _) = next(iter(epochs)), next(iter(epochs))

    assert first.shape == (160, 3, 32, 32)
    assert not torch.equal(first, second)


def test_training_row_and_step_rows() -> None:
    (row,) = training.throughput_rows(QUICK, train=_train)
    assert row.name == "training, batch 16, 1 thread"
    assert len(row.ours) == len(row.theirs) == QUICK.num_rounds

    step, added = training.step_rows(QUICK, train=_train)
    assert added.ours == tuple(a - b for a, b in zip(step.ours, step.theirs, strict=True))
    assert min(step.theirs) > 0
    assert len(added.theirs) == QUICK.num_step_rounds  # by a bare Trainer


def _train(directory: Path, *overrides: str) -> RunDirectory:
    """Lightning warns where an epoch has fewer steps than there are between two rows of the log."""
    return train_here(directory, *overrides, "trainer.log_every_n_steps=5")


def test_loop_by_hand_ends_with_the_weights_of_litlab(tmp_path: Path) -> None:
    run = train_here(
        tmp_path / "run",
        *QUICK.data,
        "data.batch_size=48",
        "trainer.log_every_n_steps=2",
        "trainer=cpu",
        "trainer.max_epochs=2",
    )
    config = from_yaml(run.config.read_text())
    experiment = assemble(config, rank=0)
    assert isinstance(experiment.data, ImageDataModule)
    assert experiment.network is not None

    by_hand = BareLoop(experiment.network, experiment.data, config)
    for epoch in range(2):
        by_hand.train(epoch)

    trained = network_state(run.last)
    for name, weights in by_hand.network.state_dict().items():
        torch.testing.assert_close(weights, trained[name], rtol=1e-5, atol=1e-6)


def test_epoch_seconds_leave_the_warm_up_out(tmp_path: Path) -> None:
    record = {"num_steps": 10, "num_images": 160, "bare": [9.0, 1.0, 2.0], "litlab": [8.0, 3.0, 4.0]}
    (tmp_path / RECORD).write_text(json.dumps(record))

    assert training.epoch_seconds(RunDirectory(tmp_path)) == training.EpochSeconds(10, 160, (3.0, 4.0), (1.0, 2.0))


def test_phases_of_a_start_come_from_its_files_and_add_up(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    seconds = {"import": 4.0, "data_and_network": 0.5, "trainer": 0.25, "fit": 9.0, "test": 1.0}
    run.result.write_text(json.dumps({"seconds": seconds}))
    for file, written in ((run.config, 1000.5), (run.provenance, 1005.75)):
        file.touch()
        os.utime(file, (written, written))

    phases = startup.phases(run, began=1000.0, stepped=1006.0)

    assert list(phases.values()) == [0.5, 0.5, 4.0, 0.5, 0.25, 0.25]
    assert sum(phases.values()) == 6.0


# ---- multiruns


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    in_memory.save(data_path.prepared(*QUICK.multirun_data), tmp_path, num_val=30)
    return tmp_path


def test_the_other_programs_get_the_images_of_litlab(arrays: Path) -> None:
    data = data_path.prepared(*QUICK.multirun_data, "data.crop_padding=0", "data.flip=false", "data.batch_size=640")
    (images, labels), (mean, std) = in_memory.load(arrays, "train"), in_memory.statistics(arrays)

    ours = _in_one_order(*next(iter(data_path.Epochs(data))))

    torch.testing.assert_close(ours, _in_one_order((images.float() - mean) / std, labels), rtol=0, atol=1e-5)
    assert [len(in_memory.load(arrays, split)[1]) for split in ("val", "test")] == [30, 40]


def test_augmented_images_are_shifted_or_mirrored_copies() -> None:
    images = torch.arange(2 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(2, 3, 32, 32)

    augmented = in_memory.augmented(images)

    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8


def test_ideal_loop_learns(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ideal, "BATCH_SIZE", 16)
    assert ideal.Loop(arrays).run(lr=0.05, seed=0, epochs=5) > 0.2  # of ten classes


@pytest.mark.filterwarnings("ignore")  # what Lightning says by default is part of the usual set-up
def test_usual_set_up_trains_validates_and_tests(arrays: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    reached = usual.train(usual.Config(data=str(arrays), epochs=1, threads=threads), arrays / "run")

    assert 0 <= reached <= 1
    assert "test/accuracy" in capfd.readouterr().out
    assert list((arrays / "run").rglob("*.ckpt"))


def test_freezing_row() -> None:
    row = multirun.freezing_row(QUICK)

    assert len(row.ours) == len(row.theirs) == QUICK.num_multiruns
    assert row.ours[0] > 0


def test_row_of_a_start_leaves_the_first_out() -> None:
    row = multirun.start_row(QUICK, in_process=lambda run: 100.0)

    assert len(row.ours) == QUICK.num_startups
    assert 0 < row.ours[0] < 100
    assert row.theirs == (100.0,)
