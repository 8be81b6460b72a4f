"""Files that grow, cut back to a checkpoint."""

from pathlib import Path

from litlab.runs.files import cut_back, sizes


def test_back_to_where_it_was(tmp_path: Path) -> None:
    metrics, events = tmp_path / "metrics.csv", tmp_path / "events.out.tfevents.1"
    metrics.write_text("a\nb\n")
    events.write_bytes(b"12345")
    known = sizes(tmp_path)
    assert known == {"metrics.csv": 4, "events.out.tfevents.1": 5}
    with metrics.open("a") as file:
        file.write("c\n")
    (tmp_path / "events.out.tfevents.2").write_bytes(b"later")
    (tmp_path / "run.log").write_text("stays")
    session = tmp_path / "events.out.tfevents.0000000000.session"
    session.write_bytes(b"stays, too: it was not appended to")
    assert cut_back(tmp_path, known) == []
    assert metrics.read_text() == "a\nb\n"
    assert set(tmp_path.iterdir()) == {metrics, events, session, tmp_path / "run.log"}


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a\n")
    lost = cut_back(tmp_path, {"metrics.csv": 4, "events.out.tfevents.1": 5})
    assert [line.partition(str(tmp_path))[2] for line in lost] == [
        "/metrics.csv has lost 2 bytes since the checkpoint was saved",
        "/events.out.tfevents.1 is gone",
    ]
    assert (tmp_path / "metrics.csv").read_text() == "a\n", "what there is stays"


def test_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a\n")
    assert cut_back(tmp_path, {}) == []
    assert not any(tmp_path.iterdir())
