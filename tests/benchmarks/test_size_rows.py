"""What is measured over sizes, on small ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.runs import train_here

from benchmarks import data_path, loading, settings, size, size_of_studies
from litlab.runs.directory import RunDirectory

QUICK = replace(settings.quick(), ranks=(1,), job_counts=(2,))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of a process that is not alone on its cores wait for each other."""
    with data_path.threads(1):
        yield


def _train(directory: Path, *overrides: str) -> RunDirectory:
    """Lightning warns where an epoch has fewer steps than there are between two rows of the log."""
    return train_here(directory, *overrides, "trainer.log_every_n_steps=2")


def test_images_are_timed_and_weighed() -> None:
    speed, ready, memory = size.image_rows(QUICK, load=loading.main)

    assert speed.name == "400 images: data path"
    assert min(speed.ours + ready.ours) > 0
    assert memory.theirs == ((400 + 40) * 3 * 32 * 32 / 2**20,)


def test_files_are_weighed_when_they_are_decoded_and_when_they_are_cached() -> None:
    rows = size.decoded_rows(QUICK, load=loading.main)

    assert [(row.name, row.unit) for row in rows] == [
        ("files, decoded: until they are there", "s"),
        ("files, decoded: peak memory", "MiB"),
        ("files, from the cache: until they are there", "s"),
        ("files, from the cache: peak memory", "MiB"),
    ]
    assert rows[0].ours > rows[2].ours  # decoding takes time
    assert rows[1].theirs == rows[3].theirs == ((60 + 20) * 3 * 32 * 32 / 2**20,)


def test_what_decoding_says_is_no_part_of_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'Decoding 60,000 images\n{"seconds": 1.0, "images_per_second": 2.0, "mebibytes": 3.0, "pixels": 4.0}\n'
    monkeypatch.setattr(size, "program", lambda *arguments: said)
    assert size.load("data=image_folder")["mebibytes"] == 3.0


def test_batches_and_ranks() -> None:
    (path,) = size.path_rows(QUICK)
    (batch,) = size.batch_rows(QUICK, train=_train)
    (rank,) = size.rank_rows(QUICK, train=_train)

    assert (path.name, path.ratios) == ("data path, batch 16", ())
    assert min(path.ours) > 0
    assert batch.name == "training, batch 16"
    assert len(batch.ours) == len(batch.theirs) == QUICK.num_rounds
    assert rank.name == "training, 1 rank"
    assert rank.ours[0] > 0


def test_more_ranks_are_held_against_one(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {1: 100.0, 2: 150.0}
    monkeypatch.setattr(size, "_speed", lambda train, settings, ranks: speeds[ranks])

    one, two = size.rank_rows(replace(QUICK, ranks=(1, 2)))

    assert (one.name, one.ratios) == ("training, 1 rank", ())
    assert (two.name, two.ratios) == ("training, 2 ranks", (1.5,))


def test_studies_are_frozen_and_looked_at() -> None:
    (freezing,) = size_of_studies.freezing_rows(QUICK)
    status, compare = size_of_studies.looking_rows(QUICK)

    assert freezing.name == "freezing, 2 jobs"
    assert (status.name, compare.name) == ("litlab status, 2 jobs", "litlab compare, 2 jobs")
    assert min(freezing.ours + status.ours + compare.ours) > 0
