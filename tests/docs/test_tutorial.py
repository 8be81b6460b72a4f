"""docs/tutorial.md: each command is executed in order in an empty folder, and its output compared with the page.

`make tutorial` writes the outputs and the pictures into the page instead.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from support.browser import open_page
from support.snippets import DOCS, Session, different_lines, read_sessions, read_snippets, write_outputs

from litlab.runs.provenance import describe_machine

PAGE = "tutorial.md"
WRITE = "LITLAB_TUTORIAL"  # environment variable: write the page instead of comparing it
TOLERANCE = 25.0  # of decimal numbers, where processor or torch is another: accuracies in percent vary like over seeds
_MACHINE = re.compile(r"^The output was printed on .*$", re.MULTILINE)


def describe_processor() -> str:
    """Return what the bits of a training with one thread depend on."""
    return f"{describe_machine()['processor']} ({torch.backends.cpu.get_cpu_capability()})"


def execute(session: Session, project: Path, look: Callable[[str], None]) -> str:
    """Execute a command in a shell, and return what it prints; stop TensorBoard once it has been looked at."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-c", f"exec {session.command}"]
    with subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        if not session.command.startswith("litlab tensorboard"):
            return process.stdout.read().rstrip("\n")
        line = process.stdout.readline().rstrip("\n")
        try:
            look(re.findall(r"http://\S+", line)[0])
        finally:
            process.send_signal(signal.SIGINT)
        return line


def fetch(address: str) -> None:
    """Fetch the first page of TensorBoard."""
    with urllib.request.urlopen(address, timeout=60) as response:
        assert b"TensorBoard" in response.read()


def take_pictures(address: str) -> None:
    """Write the pictures of TensorBoard on the page."""
    with open_page(width=1200, height=560) as page:
        for name, tab, mark in (
            ("tutorial_curves", "?tagFilter=accuracy%2Fmean&runFilter=summary&smoothing=0#timeseries", "scalar-card"),
            ("tutorial_hparams", "#hparams", "tf-hparams-table-view"),
        ):
            page.goto("about:blank")
            page.goto(f"{address}{tab}")
            page.locator(mark).first.wait_for()
            settings = page.get_by_role("button", name="Settings").filter(has_text="Settings")
            if settings.count():
                settings.first.click()  # closes them
            page.wait_for_timeout(4_000)  # animations
            page.screenshot(path=DOCS / "pictures" / f"{name}.png")


@pytest.mark.integrations
@pytest.mark.timeout(1800)
def test_the_tutorial(tmp_path: Path) -> None:
    writes, text = WRITE in os.environ, (DOCS / PAGE).read_text()
    read_snippets(PAGE).write(tmp_path)
    sessions = read_sessions(PAGE)
    outputs = [session.shorten(execute(session, tmp_path, take_pictures if writes else fetch)) for session in sessions]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning"))
    machine = f"The output was printed on {describe_processor()} with {packages}."
    if writes:
        write_outputs(PAGE, outputs)
        (DOCS / PAGE).write_text(_MACHINE.sub(machine, (DOCS / PAGE).read_text()))
        return
    tolerance = 0.0 if machine in text else TOLERANCE
    for session, output in zip(sessions, outputs, strict=True):
        assert different_lines(session.output, output, tolerance) == [], session.command
