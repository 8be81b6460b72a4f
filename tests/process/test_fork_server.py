"""Forks of a fork server, and their end when its client is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.pool_jobs import endless, new_job, process_facts, quick_config
from support.processes import group, is_alive, wait_until
from support.warm import WarmProcess

from litlab.runs.result import read_result

PRINT_FACTS = """
import json, os, signal, sys, torch
blocked = sorted(int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, []))
facts = [__name__, sys.argv[1:], os.getcwd(), dict(os.environ), blocked, os.getsid(0) == os.getpid(), os.getpgid(0)]
print(json.dumps([*facts, sys.stdin.read(), sys.path[0]]))
print("an error", file=sys.stderr)
sys.exit(7)
"""
CONTROLLER = """
import json, sys
from pathlib import Path
from litlab.runs.directory import RunDirectory
from litlab.sweep.backends.base import Job
from litlab.process import fork_server
from litlab.sweep.backends.local import LocalPool, PoolSettings
impatient = "import litlab.process.fork_server; litlab.process.fork_server.GRACE = 3; litlab.process.fork_server.main()"
fork_server.COMMAND = (sys.executable, "-P", "-c", impatient)
pool = LocalPool(PoolSettings(jobs=3, jobs_per_device=1, timeout=None, retries=0))
for number, folder in enumerate(sys.argv[1:]):
    run = RunDirectory(Path(folder))
    from litlab.config.config_file import from_yaml
    pool.submit(Job(number, run, from_yaml(run.config.read_text())))
while True:
    pool.poll(60)
"""


def test_a_fork_runs_a_module_as_a_new_interpreter_does(tmp_path: Path) -> None:
    (tmp_path / "print_facts.py").write_text(PRINT_FACTS)
    folder, stdout, stderr = tmp_path / "folder", tmp_path / "stdout", tmp_path / "stderr"
    folder.mkdir()
    environment = {"PYTHONPATH": str(tmp_path), "ONLY": "this"}
    for block_signals in (False, True):
        process = WarmProcess(
            ["print_facts", "a", "b c"], folder, stdout=stdout, stderr=stderr, environment=environment,
            new_session=block_signals, block_signals=block_signals,
        )  # fmt: skip
        assert process.wait(20) == 7
        blocked = [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM] if block_signals else []
        expected = ["__main__", ["a", "b c"], str(folder), environment, sorted(map(int, blocked)), block_signals]
        facts = json.loads(stdout.read_text().splitlines()[-1])
        assert facts == [*expected, process.pid, "", str(tmp_path)]
    assert stderr.read_text() == "an error\n" * 2, "appended"


@pytest.mark.integrations
def test_a_killed_controller_takes_all_along(tmp_path: Path) -> None:
    """No process is left, whatever it does: neither the server nor a job."""
    configs = (endless(), endless(devices=2), quick_config(how="hang"))
    jobs = [new_job(tmp_path, number, config) for number, config in enumerate(configs)]
    command = [sys.executable, "-c", CONTROLLER, *(str(job.run.path) for job in jobs)]
    controller = subprocess.Popen(command, cwd=tmp_path)
    try:
        wait_until(lambda: all(job.run.metrics.exists() for job in jobs[:2]))
        wait_until(lambda: (jobs[2].run.path / "process.0.json").exists())
        facts = [process_facts(job) for job in jobs]
        server = int(facts[0]["environment"]["LITLAB_PARENT"])
        processes = [server, *(pid for process in facts for pid in group(process["group"]))]
        assert len(processes) == 1 + 1 + 3 + 1
        os.killpg(facts[0]["group"], signal.SIGSTOP)  # as `pause` does
    finally:
        controller.kill()
        controller.wait()
    killed = time.monotonic()
    wait_until(lambda: not any(map(is_alive, processes)), seconds=7)
    assert time.monotonic() - killed > 2.5, "the one that hangs was given time"
    for job in jobs[:2]:
        assert read_result(job.run)["status"] == "interrupted"
        assert job.run.last.exists()
