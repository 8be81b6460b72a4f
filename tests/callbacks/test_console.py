"""Console output of a run in its own process: plain lines into a pipe, a progress bar on a terminal."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from support.runs import TINY, call_litlab
from support.warm import WarmProcess

from litlab.callbacks.console import LINES_PER_EPOCH
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

NUM_EPOCHS = 2  # of TINY
NOISE = ("Tip", "INFO", "arning", "GPU available", "`")  # Lightning's


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def piped(project: Path) -> "subprocess.CompletedProcess[str]":
    return call_litlab(project, "train", *TINY, "hydra.run.dir=runs/piped")


@pytest.fixture(scope="module")
def lines_out(piped: "subprocess.CompletedProcess[str]") -> list[str]:
    assert (piped.returncode, piped.stderr) == (0, "")
    return [line for line in piped.stdout.splitlines() if line]


def on_a_terminal(project: Path, *arguments: str) -> tuple[str, str]:
    """Output on a terminal, and errors, of a process that has to succeed."""
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    stderr = project / "stderr"
    stderr.unlink(missing_ok=True)
    process = WarmProcess(
        ["litlab", *arguments], project, stdout=os.ttyname(terminal), stderr=stderr, environment=environment
    )
    os.close(terminal)
    output = b""
    try:
        while content := os.read(controller, 4096):
            output += content
    except OSError:  # how Linux says that nobody has the terminal open any more
        pass
    os.close(controller)
    assert process.wait(60) == 0, (project / "stderr").read_text()
    return output.decode(), (project / "stderr").read_text()


def test_a_pipe_gets_plain_lines_of_litlab_alone(lines_out: list[str]) -> None:
    assert not [line for line in lines_out if "\x1b" in line or "\r" in line or any(word in line for word in NOISE)]
    heads = [line.split()[0] for line in lines_out]
    assert heads[:4] == ["litlab", "data", "network", "training"]
    assert heads[-3:] == [str(NUM_EPOCHS), "run", "TensorBoard"]
    table = heads.index("metric")
    assert set(heads[4:table]) == {"epoch"}
    assert lines_out[1].startswith(
        "data         shapes: 160 train, 40 validation, 53 test images of 32x32x3, 10 classes"
    )


def test_a_pipe_gets_a_few_lines_an_epoch(lines_out: list[str]) -> None:
    for epoch in range(1, NUM_EPOCHS + 1):
        lines = [line for line in lines_out if line.startswith(f"epoch {epoch}/{NUM_EPOCHS}")]
        assert 2 <= len(lines) <= LINES_PER_EPOCH + 1
        assert "validation" in lines[-1]
        assert re.search(r"loss \d\.\d{4}  .*accuracy \d+\.\d\d %", lines[-1])


def test_result_table_directory_and_command_are_printed_at_the_end(lines_out: list[str], project: Path) -> None:
    run = RunDirectory(project / "runs" / "piped")
    result = read_result(run)
    table = {line.split()[0]: line for line in lines_out[[line.split()[0] for line in lines_out].index("metric") :]}
    assert table["metric"].split("  ")[-1].strip() == "test"
    assert table["accuracy"].endswith(f"{100 * result['test']['test/accuracy']:.2f} %")
    assert table["loss"].endswith(f"{result['test']['test/loss']:.4f}")
    assert lines_out[-2:] == ["run          runs/piped", "TensorBoard  litlab tensorboard runs"]
    log = run.log.read_text()
    assert [line for line in lines_out[-2:] + lines_out[:4] if line not in log] == []


def test_a_terminal_gets_a_progress_bar(project: Path) -> None:
    output, errors = on_a_terminal(project, "train", *TINY, "~logger", "~callbacks", "hydra.run.dir=runs/terminal")
    assert errors == ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert not [word for word in NOISE if word in plain]
    bars = re.findall(r"epoch (\d)/2 ━+[╸╺━ ]* *(\d+) %", plain)
    assert bars[-1] == (str(NUM_EPOCHS), "100")
    assert "\x1b[" in output
    accuracy = read_result(RunDirectory(project / "runs" / "terminal"))["test"]["test/accuracy"]
    assert re.search(rf"accuracy .* {100 * accuracy:.2f} %", plain)
    assert "TensorBoard  litlab tensorboard runs" in plain
