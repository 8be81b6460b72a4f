"""Console output of a run in its own process: plain lines into a pipe, a progress bar on a terminal."""

import os
import pty
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from support.runs import TINY, TINY_WITH_PICTURES, call_litlab
from support.small_fit import Batches, Rows, make_task, make_trainer
from support.warm import WarmProcess

from litlab.callbacks.console import LINES_PER_EPOCH, Console
from litlab.callbacks.training_log import TrainingLog
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

NUM_EPOCHS = 2  # of TINY
NOISE = ("Tip", "INFO", "arning", "GPU available", "`")  # Lightning's


def run_on_a_terminal(project: Path, *arguments: str) -> tuple[str, str]:
    """Return the output on a terminal, and the errors, of a process that has to succeed."""
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    stderr = project / "stderr"
    process = WarmProcess(
        ["litlab", *arguments], project, stdout=os.ttyname(terminal), stderr=stderr, environment=environment
    )
    os.close(terminal)
    output = b""
    try:
        while content := os.read(controller, 4096):
            output += content
    except OSError:  # Linux: nobody has the terminal open any more
        pass
    os.close(controller)
    assert process.wait(60) == 0, stderr.read_text()
    return output.decode(), stderr.read_text()


def test_a_pipe_gets_plain_lines_and_a_table_of_results(tmp_path: Path) -> None:
    command = call_litlab(tmp_path, "train", *TINY, "hydra.run.dir=runs/piped")
    assert (command.returncode, command.stderr) == (0, "")
    lines = [line for line in command.stdout.splitlines() if line]
    assert not [line for line in lines if "\x1b" in line or "\r" in line or any(word in line for word in NOISE)]
    heads = [line.split()[0] for line in lines]
    assert heads[:4] == ["litlab", "data", "network", "training"]
    assert heads[-3:] == [str(NUM_EPOCHS), "run", "TensorBoard"]
    table = heads.index("metric")
    assert set(heads[4:table]) == {"epoch"}
    assert lines[1] == "data         shapes: 160 train, 40 validation, 53 test images of 32x32x3, 10 classes"
    for epoch in range(1, NUM_EPOCHS + 1):
        epoch_lines = [line for line in lines if line.startswith(f"epoch {epoch}/{NUM_EPOCHS}")]
        assert 2 <= len(epoch_lines) <= LINES_PER_EPOCH + 1
        assert "validation" in epoch_lines[-1]
        assert re.search(r"loss \d\.\d{4}  .*accuracy \d+\.\d\d %", epoch_lines[-1])
        assert epoch_lines[-2].startswith(f"epoch {epoch}/{NUM_EPOCHS} 10/10  loss ")
    run = RunDirectory(tmp_path / "runs" / "piped")
    losses = [row.value for row in read_metrics(run.metrics) if row.metric == "train/loss" and row.step % 10 == 0]
    assert re.findall(r" 10/10  loss (\d\.\d{4})", command.stdout) == [f"{loss:.4f}" for loss in losses]
    result = read_result(run)
    test, seconds = result["test"], result["seconds"]
    times = re.fullmatch(r"2 epochs, 20 steps: training (\S+) s, (\S+) images/s; (\S+) s in all", lines[-3])
    assert times is not None, lines[-3]
    training, speed, whole = (float(text.replace(",", "")) for text in times.groups())
    assert training == pytest.approx(seconds["training"], abs=0.06)
    assert speed == pytest.approx(NUM_EPOCHS * 160 / seconds["training"], rel=0.01)
    assert whole == pytest.approx(sum(seconds.values()) - seconds["training"] - seconds["saving"], abs=0.06)
    rows = dict(zip(heads[table:], lines[table:], strict=True))
    assert rows["metric"].split("  ")[-1].strip() == "test"
    assert rows["accuracy"].endswith(f"{100 * test['test/accuracy']:.2f} %")
    assert rows["loss"].endswith(f"{test['test/loss']:.4f}")
    assert lines[-2:] == ["run          runs/piped", "TensorBoard  litlab tensorboard runs"]
    log = run.log.read_text()
    assert [line for line in lines if line.rstrip() not in log] == []


def fit(folder: Path, *callbacks: Callback) -> Rows:
    """Train three epochs of five batches with a row of training values at the end of each."""
    rows = Rows()
    console = Console(run=RunDirectory(folder), name="name", seed=0, resumed=None, warm_start=[], silent=False)
    trainer = make_trainer([rows], [*callbacks, TrainingLog(), console], max_epochs=3, log_every_n_steps=50)
    trainer.fit(make_task(), Batches(37), Batches(9))
    return rows


def test_a_note_has_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may quote the checkpoint of somebody else's run: who stopped it, and why."""
    console = Console(run=RunDirectory(tmp_path), name="name", seed=0, resumed=None, warm_start=[], silent=False)
    console.note("stopped by \x1b[2JThis\x07")
    assert "\x1b" not in (output := capsys.readouterr().out)
    assert output.split() == ["note:", "stopped", "by", "[2JThis"]


def test_training_values_are_those_of_their_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = fit(tmp_path).values("train/loss")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[:3] for line in lines[::2]] == [["epoch", f"{epoch}/3", "5/5"] for epoch in (1, 2, 3)]
    assert [line.split()[4] for line in lines[::2]] == [f"{losses[step]:.4f}" for step in (5, 10, 15)]


def test_the_time_left_is_estimated_from_the_first_epoch_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("litlab.callbacks.console.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Passing(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            now[0] += 2.0

        def on_validation_end(self, *args: Any) -> None:
            now[0] += 5.0

    fit(tmp_path, Passing())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    left = [match and match[1] for match in (re.search(r"  (\S+) left$", line) for line in lines)]
    assert left == ["0:20", "0:30", "0:12", "0:15", None, None]


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    settings = (*TINY_WITH_PICTURES, "~logger", "~callbacks", "hydra.run.dir=runs/terminal")
    output, errors = run_on_a_terminal(tmp_path, "train", *settings)
    assert errors == ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert not [word for word in NOISE if word in plain]
    bars = re.findall(r"epoch (\d)/2 ━+[╸╺━ ]* *(\d+) %", plain)
    assert bars[-1] == (str(NUM_EPOCHS), "100")
    assert "\x1b[" in output
    accuracy = read_result(RunDirectory(tmp_path / "runs" / "terminal"))["test"]["test/accuracy"]
    assert re.search(rf"accuracy .* {100 * accuracy:.2f} %", plain)
    assert "TensorBoard" not in plain
