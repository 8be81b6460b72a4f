"""Every row of the benchmarks runs on tiny data; names and arithmetic of the rows that compute something."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.runs import train_here

from benchmarks import (
    __main__,
    data_path,
    gpu,
    kept_memory,
    loading,
    multirun,
    recipes,
    settings,
    size,
    size_of_studies,
    slurm,
    speedrun,
    startup,
    streaming,
    time_to_accuracy,
    training,
    two_checkouts,
)
from benchmarks.bare import RECORD
from benchmarks.harness import Row
from benchmarks.recipes import Outcome
from benchmarks.runs import compose_config
from litlab.runs.directory import RunDirectory

QUICK = replace(settings.quick(), ranks=(1,), job_counts=(2,))


def train(directory: Path, *overrides: str) -> RunDirectory:
    """Train here; Lightning warns if an epoch has fewer steps than there are between two rows of the log."""
    return train_here(directory, *overrides, "trainer.log_every_n_steps=2")


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("measure", "names"),
    [
        (lambda: data_path.rows(QUICK), ["data path, batch 16", "data path, batch 16, data.transforms"]),
        (lambda: streaming.rows(QUICK), ["data path, batch 16, storage=stream"]),
        (lambda: training.throughput_rows(QUICK, train=train), ["training, batch 16, 1 thread"]),
        (lambda: training.step_rows(QUICK, train=train), ["step, tiny network", "step, added by litlab"]),
        (lambda: [multirun.freezing_row(QUICK)], ["freezing 3 jobs"]),
        (lambda: size.path_rows(QUICK), ["data path, batch 16"]),
        (lambda: size.batch_rows(QUICK, train=train), ["training, batch 16"]),
        (lambda: size.rank_rows(QUICK, train=train), ["training, 1 rank"]),
        (lambda: size_of_studies.freezing_rows(QUICK), ["freezing, 2 jobs"]),
        (lambda: size_of_studies.looking_rows(QUICK), ["litlab status, 2 jobs", "litlab compare, 2 jobs"]),
        (
            lambda: kept_memory.rows(QUICK),
            [f"large network, memory kept: {quantity}" for quantity in kept_memory.UNITS],
        ),
        (lambda: gpu.data_rows(QUICK, accelerator="cpu"), ["GPU: data path, batch 512"]),
        (
            lambda: size.decoded_rows(QUICK, load=loading.main),
            [
                f"files, {source}: {what}"
                for source in ("decoded", "from the cache")
                for what in ("until they are there", "peak memory")
            ],
        ),
    ],
)
def test_rows(measure: Callable[[], list[Row]], names: list[str]) -> None:
    rows = measure()
    assert [row.name for row in rows] == names
    for row in rows:
        assert row.ours
        assert len(row.theirs) in (0, len(row.ours))
        if "added" not in row.name and "memory" not in row.name:  # a difference, and growth that can be nothing
            assert min(row.ours + row.theirs) > 0


@pytest.mark.cluster
def test_a_study_on_slurm_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := slurm.why_not():
        pytest.skip(reason)
    monkeypatch.setattr(slurm, "POLL", 0.5)
    rows = {row.name.removeprefix("SLURM, 3 jobs: "): row.ours for row in slurm.rows(QUICK)}
    (whole,), (submitted,) = rows["whole study"], rows["submitted"]
    assert 0 < submitted < whole
    assert rows["calls of sbatch"] == (1,)
    assert 1 <= rows["calls of squeue"][0] <= whole / 0.5 + 1


def test_without_slurm_its_rows_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "why_not", lambda: "not installed: sbatch")
    assert slurm.rows(QUICK) == []
    assert capsys.readouterr().err == f"{slurm.NO_SLURM}\n"


def test_memory_is_compared_with_the_pixels() -> None:
    memory = size.image_rows(QUICK, load=loading.main)[-1]
    assert memory.theirs == ((400 + 40) * 3 * 32 * 32 / 2**20,)


@pytest.mark.integrations
def test_the_start_row_leaves_the_first_start_out() -> None:
    row = multirun.start_row(QUICK, in_process=lambda run: 100.0)
    assert len(row.ours) == QUICK.num_startups
    assert 0 < row.ours[0] < 100
    assert row.theirs == (100.0,)


def test_epoch_seconds_leave_the_warm_up_out(tmp_path: Path) -> None:
    record = {"num_steps": 10, "num_images": 160, "bare": [9.0, 1.0, 2.0], "litlab": [8.0, 3.0, 4.0]}
    (tmp_path / RECORD).write_text(json.dumps(record))
    assert training.epoch_seconds(RunDirectory(tmp_path)) == training.EpochSeconds(10, 160, (3.0, 4.0), (1.0, 2.0))


def test_phases_of_a_start_add_up(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    seconds = {"import": 4.0, "data_and_network": 0.5, "trainer": 0.25, "fit": 9.0, "test": 1.0}
    run.result.write_text(json.dumps({"seconds": seconds}))
    for file, written in ((run.config, 1000.5), (run.provenance, 1005.75)):
        file.touch()
        os.utime(file, (written, written))

    phases = startup.phases(run, began=1000.0, stepped=1006.0)

    assert list(phases.values()) == [0.5, 0.5, 4.0, 0.5, 0.25, 0.25]


def test_recipes_alternate_with_the_tutorial() -> None:
    seeds: list[str] = []

    def recipe(*overrides: str) -> Outcome:
        seeds.append(f"{overrides[0]} {overrides[-1]}")
        return Outcome(0.5, 10.0, 8.0)

    rows = time_to_accuracy.rows(
        replace(QUICK, recipes={"a": 2, "b": 1}),
        recipe=recipe,
        tutorial=lambda arrays, seed: Outcome(0.5, 20.0 * (seed + 1), 16.0),
    )

    assert seeds == ["experiment=a seed=0", "experiment=b seed=0", "experiment=a seed=1"]
    ratios = {row.name: row.ratios for row in rows}
    assert (ratios["a: whole process"], ratios["b: whole process"]) == ((0.5, 0.25), (0.5,))


def test_names_of_recipes_and_switches_compose() -> None:
    for recipe in recipes.RECIPES.values():
        assert compose_config(*recipe.overrides)["trainer"]
    assert set(settings.full(None).recipes) < set(recipes.RECIPES)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Call `python -m benchmarks` in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    return int(ended.value.code or 0)


def test_rows_of_a_gpu_are_left_out_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call(monkeypatch, "--quick", "gpu") == 0
    assert capsys.readouterr().out.endswith(f"{__main__.NO_GPU}\n")


def test_a_group_of_rows_is_measured_in_its_order_and_one_that_fails_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: settings.Settings) -> list[Row]:
        raise RuntimeError("no kernel")

    rows = {"data": fail, "gpu.speedrun": fail, "gpu.resume": lambda _: [Row("resume", "", (0.0,))]}
    monkeypatch.setattr(__main__, "ROWS", rows)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert call(monkeypatch, "--quick", "gpu") == 1

    out, err = capsys.readouterr()
    assert err.index("measuring gpu.speedrun") < err.index("no kernel") < err.index("measuring gpu.resume")
    assert "measuring data" not in err
    notes = [speedrun.NO_SCRIPTS, "gpu.speedrun: failed, see the traceback above"]
    assert out.splitlines()[-2:] == notes
    assert "resume " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["graphs"], "no such row: graphs; known: gpu, step, "),
        (["gpu", "--scripts", "nowhere"], "--scripts nowhere: no such folder. Put airbench94_muon.py from https://"),
    ],
)
def test_arguments_that_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--quick", *arguments) == 2
    assert message in capsys.readouterr().err


def test_two_checkouts_are_compared_by_median_and_order_statistics() -> None:
    assert two_checkouts.interval([1, 2, 3, 4, 5, 6, 7]) == (1, 7)  # 1 - 2 / 2**7 = 98.4 %
    assert two_checkouts.interval(list(range(1, 12))) == (2, 10)  # 1 - 2 * (1 + 11) / 2**11 = 98.8 %
    table = two_checkouts.table({"row [s]": {"old": [1.0, 2.0, 4.0], "new": [1.0, 4.0, 6.0]}})
    assert table.splitlines()[1].split() == ["row", "[s]", "1.500", "1.000", "to", "2.000", "3"]
