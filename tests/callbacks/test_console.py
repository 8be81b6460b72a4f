"""Console output of a run in its own process: plain lines into a pipe, a progress bar on a terminal."""

import os
import pty
import re
from pathlib import Path

from support.runs import TINY, call_litlab
from support.warm import WarmProcess

from litlab.callbacks.console import LINES_PER_EPOCH
from litlab.runs.directory import RunDirectory
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
    run = RunDirectory(tmp_path / "runs" / "piped")
    test = read_result(run)["test"]
    rows = dict(zip(heads[table:], lines[table:], strict=True))
    assert rows["metric"].split("  ")[-1].strip() == "test"
    assert rows["accuracy"].endswith(f"{100 * test['test/accuracy']:.2f} %")
    assert rows["loss"].endswith(f"{test['test/loss']:.4f}")
    assert lines[-2:] == ["run          runs/piped", "TensorBoard  litlab tensorboard runs"]
    log = run.log.read_text()
    assert [line for line in lines[-2:] + lines[:4] if line not in log] == []


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    output, errors = run_on_a_terminal(tmp_path, "train", *TINY, "~logger", "~callbacks", "hydra.run.dir=runs/terminal")
    assert errors == ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert not [word for word in NOISE if word in plain]
    bars = re.findall(r"epoch (\d)/2 ━+[╸╺━ ]* *(\d+) %", plain)
    assert bars[-1] == (str(NUM_EPOCHS), "100")
    assert "\x1b[" in output
    accuracy = read_result(RunDirectory(tmp_path / "runs" / "terminal"))["test"]["test/accuracy"]
    assert re.search(rf"accuracy .* {100 * accuracy:.2f} %", plain)
    assert "TensorBoard  litlab tensorboard runs" in plain
