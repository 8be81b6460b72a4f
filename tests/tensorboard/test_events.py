"""Event files that are written once: read back as TensorBoard does, the same for the same input."""

import os
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.io_wrapper import IsTensorFlowEventsFile

from litlab.runs.files import write_atomic
from litlab.tensorboard import PREFIX, LoggedSummary, scalar, write_events

LOGGED = [LoggedSummary(scalar("val/loss", value), step, 1.5e9 + step) for step, value in ((10, 0.5), (20, 0.25))]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / f"{PREFIX}0.test"
    assert write_events(file, LOGGED)
    first, *events = EventFileLoader(str(file)).Load()
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 1.5e9 + 10)
    found = [(e.step, e.wall_time, v.tag, v.tensor.float_val[0]) for e in events for v in e.summary.value]
    assert found == [(10, 1.5e9 + 10, "val/loss", 0.5), (20, 1.5e9 + 20, "val/loss", 0.25)]
    assert list(tmp_path.iterdir()) == [file]


def test_twice_changes_nothing(tmp_path: Path) -> None:
    file, other = tmp_path / f"{PREFIX}0.test", tmp_path / f"{PREFIX}1.test"
    write_events(file, LOGGED)
    os.utime(file, (1, 1))
    assert not write_events(file, LOGGED)
    assert file.stat().st_mtime == 1
    write_events(other, LOGGED)
    assert other.read_bytes() == file.read_bytes()
    assert write_events(file, LOGGED[:1])
    assert file.read_bytes() != other.read_bytes()


def test_tensorboard_takes_no_unfinished_file_for_one_of_events(tmp_path: Path) -> None:
    seen: list[str] = []
    write_atomic(tmp_path / f"{PREFIX}0", lambda file: seen.extend(each.name for each in tmp_path.iterdir()))
    assert len(seen) == 1
    assert not IsTensorFlowEventsFile(seen[0])
    assert IsTensorFlowEventsFile(f"{PREFIX}0")


def test_it_takes_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import litlab.process.failure; assert 'tensorboard' not in sys.modules\n"
        "from litlab.tensorboard import *; from litlab.tensorboard import session_start_summary\n"
        "logged = LoggedSummary(session_start_summary({'lr': 0.1}, 0), 0, 0)\n"
        f"write_events(Path({str(tmp_path)!r}) / 'events.out.tfevents.0', [logged])\n"
        "print([name for name in ('torch', 'tensorflow', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
