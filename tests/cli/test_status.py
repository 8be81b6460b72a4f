"""`litlab status` of studies, runs and folders of runs: its lines, its speed, and that it only reads."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.composed_jobs import begin, plan_of, provenance, seeds

from litlab.cli import status
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.lock import directory_lock
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.waiting_jobs import write_waiting_jobs
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study

LIMIT = 0.5  # seconds for a thousand jobs, with the start of Python
CODE = "import sys; sys.argv[0] = 'litlab'; from litlab.cli.main import main; main()"
COMMAND = [sys.executable, "-c", CODE, "status"]
ERROR = '  File "/home/me/net.py", line 3, in forward\n    x = 1 / 0\nZeroDivisionError: division by zero'
WATCH = """
import sys
from litlab.cli import main, status
status.INTERVAL = 0.1
sys.argv = ["litlab", "status", "--watch", *sys.argv[1:]]
main.main()
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """One job of each kind."""
    path = tmp_path / "s"
    done, failed, refused, stopped, killed, _, pruned = (job.run for job in begin(path, range(7)))
    write_result(done, Result(RunStatus.COMPLETED, "", objective=0.5, seconds={"fit": 61.0}))
    write_json(done.metric_table, {"val/accuracy": {"unit": "%", "mode": "max", "bounds": None}})
    write_result(failed, Result(RunStatus.FAILED, "", error=ERROR))
    write_result(refused, Result(RunStatus.REFUSED, "", error="data.root: no such folder\nmore"))
    write_result(stopped, Result(RunStatus.INTERRUPTED, "", error="stopped by SIGTERM, saved at step 3"))
    write_result(pruned, Result(RunStatus.PRUNED, "", error="pruned: other trials were better at this point"))
    killed.metrics.write_text("epoch,step,metric,value\n0,10,val/accuracy,0.25\n")
    return path


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    status.main([*arguments])
    return capsys.readouterr().out.splitlines()


def test_a_line_a_job(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = RunDirectory(study / "0005_seed-5")
    shutil.copytree(study / "0000_seed-0", study / "2026-01-31_12-00-00_1a2b3c")  # run again: no job
    with directory_lock(running.path):
        running.metrics.write_text("epoch,step,metric,value\n1,20,val/accuracy,0.375\n")
        lines = lines_of(capsys, str(study))
    assert lines == [
        f"{study}: 7 jobs: 1 completed, 1 running, 1 failed, 2 interrupted, 1 pruned, 1 refused",
        "job          state        epoch  time  val/accuracy",
        "0000_seed-0  completed           1:01       50.00 %",
        "0001_seed-1  failed                                  ZeroDivisionError: division by zero",
        "0002_seed-2  refused                                 data.root: no such folder",
        "0003_seed-3  interrupted                             stopped by SIGTERM, saved at step 3",
        "0004_seed-4  interrupted    1/2             25.00 %  its process is gone",
        "0005_seed-5  running        2/2  0:00       37.50 %",
        "0006_seed-6  pruned                                  pruned: other trials were better at this point",
    ]


def test_an_untrusted_study_is_only_read(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for signature in study.rglob(".signature"):
        signature.unlink()
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    assert len(lines_of(capsys, str(study))) == 9
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_folders_and_single_runs(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDirectory.create(tmp_path / "2026-01-31_12-00-00_1a2b3c", "seed: 0\n", {})
    for name in ("0", "1"):  # as Hydra's own launcher names them
        RunDirectory.create(tmp_path / "multirun_2026" / name, "objective: null\n", {})
    (tmp_path / "multirun_2026" / "multirun.yaml").touch()
    (tmp_path / "more" / "deeper" / "folder").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    lines = lines_of(capsys, str(tmp_path))
    assert lines[0].startswith(f"{tmp_path}: 10 jobs: 1 completed, ")
    assert [line.split()[0] for line in lines[2:]] == [
        "2026-01-31_12-00-00_1a2b3c", "multirun_2026/0", "multirun_2026/1", *(f"s/000{n}_seed-{n}" for n in range(7)),
    ]  # fmt: skip
    single = lines_of(capsys, str(study / "0001_seed-1"))
    assert single[0] == f"{study / '0001_seed-1'}: 1 job: 1 failed"
    assert single[2].split() == ["0001_seed-1", "failed", "ZeroDivisionError:", "division", "by", "zero"]


def test_directories_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="nowhere: no such directory; name a study, a run"):
        status.main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="holds no runs; name a study, a run, or a folder"):
        status.main([str(tmp_path)])
    empty = Study.load_own(tmp_path / "s")
    with empty.lock():
        empty.write_plan(plan_of([], tmp_path))
    assert lines_of(capsys, str(tmp_path / "s")) == [f"{tmp_path / 's'}: 0 jobs"]
    (tmp_path / "s" / "study.yaml").write_text("{{")
    with pytest.raises(UserError, match=r"study\.yaml is damaged"):
        status.main([str(tmp_path / "s")])


def test_lines_of_untrusted_files_are_short_and_printable(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(study / "0001_seed-1")
    write_result(run, Result(RunStatus.FAILED, "", error="\x1b[2J\x1b]0;owned\x07" + "x" * 100_000))
    for name in ("0000_seed-0", "0001_seed-1", "0002_seed-2"):
        (study / name / "config.yaml").write_text(json.dumps({"objective": {"metric": "\x1b[31m" * 50}}))
    (study / "jobs.jsonl").write_text((study / "jobs.jsonl").read_text().replace("0006_seed-6", "\\u001b[2J" * 30))
    text = "\n".join(lines_of(capsys, str(study)))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize(
    "line",
    ['{"\\u001b[2J": 1}', '{"number": 0, "directory": "0", "identity": "", "overrides": [], "point": []}', "[[5]]"],
)
def test_damaged_job_records(line: str, study: Path) -> None:
    (study / "jobs.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"jobs\.jsonl is damaged in line 1: it does not describe a job$"):
        status.main([str(study)])
    (study / "jobs.jsonl").unlink()
    os.mkfifo(study / "jobs.jsonl")
    with pytest.raises(UserError, match=r"jobs\.jsonl is damaged: it is no regular file"):
        status.main([str(study)])


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Create a study of 1,000 jobs, 900 of them ended, quickly."""
    path = tmp_path_factory.mktemp("thousand") / "s"
    study = Study.load_own(path)
    composed = seeds(study, range(1000))
    start = time.process_time()
    with study.lock():
        study.write_plan(plan_of([], path.parent))
        jobs = create_jobs(study, composed, provenance(path.parent))
    assert time.process_time() - start < 8
    write_result(
        jobs[0].run, Result(RunStatus.COMPLETED, "", objective=0.5, seconds={"fit": 61.0}, last={"val/loss": 1.0})
    )
    for job in jobs[1:900]:
        job.run.result.write_bytes(jobs[0].run.result.read_bytes())
    yield path
    shutil.rmtree(path)


@pytest.mark.integrations
def test_a_thousand_jobs_at_once(thousand: Path) -> None:
    taken = []
    for _ in range(3):
        with subprocess.Popen([*COMMAND, str(thousand)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = process.stdout.read().decode().splitlines()
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        assert (lines[0].partition(": ")[2], len(lines)) == ("1000 jobs: 900 completed, 100 queued", 1002)
        taken.append(usage.ru_utime + usage.ru_stime)
    assert min(taken) < LIMIT


@contextmanager
def killed_after_timeout(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Kill a process that a test would wait for without end."""
    timer = threading.Timer(30, process.kill)
    timer.start()
    yield
    timer.cancel()


def test_watching_without_a_terminal_prints_each_change(study: Path) -> None:
    run = RunDirectory(study / "0005_seed-5")
    with (
        directory_lock(run.path),
        subprocess.Popen([sys.executable, "-c", WATCH, str(study)], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        with killed_after_timeout(process):
            for _ in range(9):
                process.stdout.readline()
            time.sleep(0.3)
            write_result(run, Result(RunStatus.COMPLETED, "", objective=0.75))
            rest = process.stdout.read().splitlines()
    counts = "2 completed, 1 failed, 2 interrupted, 1 pruned, 1 refused"
    assert rest == [f"0005_seed-5 completed 75.00 %  [{study}: 7 jobs: {counts}]"]
    assert process.returncode == 0


def test_watching_on_a_terminal(study: Path) -> None:
    """On a screen of 8 lines failed jobs are shown rather than completed ones."""
    terminal, screen = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "LINES": "8", "COLUMNS": "70"}
    run = RunDirectory(study / "0005_seed-5")
    with directory_lock(run.path):
        command = [sys.executable, "-c", WATCH, study.name]
        process = subprocess.Popen(command, stdout=screen, env=environment, cwd=study.parent)
        os.close(screen)
        text = b""
        with killed_after_timeout(process):
            while b"running" not in text.partition(b"0005")[2]:
                text += os.read(terminal, 4096)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
    os.close(terminal)
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", text).decode()
    assert "7 jobs: 1 completed, 1 running, 1 failed" in plain
    assert "0001_seed-1  failed" in plain
    assert "0000_seed-0" not in plain


def test_a_job_that_waits_for_a_device_has_the_reason(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only as long as its command is alive; the file may hold anything."""
    reason, file = "GPU 0 is in use by process 123 on host", study / ".waiting.json"
    write_waiting_jobs(study, {study / "0005_seed-5": reason})
    with directory_lock(study):
        assert lines_of(capsys, str(study))[7].split(maxsplit=2) == ["0005_seed-5", "queued", reason]
    assert reason not in "".join(lines_of(capsys, str(study)))
    process = f'"process": {os.getpid()}, "jobs": '
    with directory_lock(study):
        for content in ("[1]", "{", f"{{{process} 3}}", f'{{{process}{{"0005_seed-5": 3, "../5": "\\u001b"}}}}'):
            file.write_text(content)
            assert lines_of(capsys, str(study))[7].split() == ["0005_seed-5", "queued"]
        file.write_text(f'{{"process": 1, "jobs": {{"0005_seed-5": "{reason}"}}}}')  # an earlier command was killed
        assert reason not in "".join(lines_of(capsys, str(study)))
