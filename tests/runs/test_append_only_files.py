"""Append-only files, truncated to a checkpoint."""

import os
from pathlib import Path

import pytest

from litlab.runs.append_only_files import appended_lengths, sync_appended, truncate_appended


def test_files_are_truncated_to_the_checkpoint(tmp_path: Path) -> None:
    metrics, events = tmp_path / "metrics.csv", tmp_path / "events.out.tfevents.1"
    metrics.write_text("a\nb\n")
    events.write_bytes(b"12345")
    lengths = appended_lengths(tmp_path)
    assert lengths == {"metrics.csv": 4, "events.out.tfevents.1": 5}
    with metrics.open("a") as file:
        file.write("c\n")
    (tmp_path / "events.out.tfevents.2").write_bytes(b"later")
    kept = {metrics, events, tmp_path / "events.out.tfevents.0000000000.session", tmp_path / "run.log"}
    for file in kept - {metrics, events}:
        file.write_text("not append-only")
    assert truncate_appended(tmp_path, lengths) == []
    assert metrics.read_text() == "a\nb\n"
    assert set(tmp_path.iterdir()) == kept


def test_they_are_synced_before_a_checkpoint_counts_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("events.out.tfevents.1", "metrics.csv"):
        (tmp_path / name).write_text(name)
    fsync, synced = os.fsync, []

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", record_fsync)
    sync_appended(tmp_path)
    assert sorted(synced) == ["events.out.tfevents.1", "metrics.csv"]


def test_lost_content_is_reported(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a\n")
    warnings = truncate_appended(tmp_path, {"metrics.csv": 4, "events.out.tfevents.1": 5})
    assert [line.partition(str(tmp_path))[2] for line in warnings] == [
        "/metrics.csv has lost 2 bytes since the checkpoint was saved",
        "/events.out.tfevents.1 is gone",
    ]
    assert (tmp_path / "metrics.csv").read_text() == "a\n", "the rest is kept"
    assert truncate_appended(tmp_path, {}) == []
    assert not any(tmp_path.iterdir()), "without a checkpoint all of them are removed"
