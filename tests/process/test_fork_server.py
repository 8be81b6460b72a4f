"""A controller that is killed with -9 leaves nobody behind: neither the server nor a job, whatever that is doing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.pool_jobs import PATIENCE, endless, group, is_alive, new_job, quick_config, until

from litlab.runs.result import read_result

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
    from litlab.config.freeze import from_yaml
    pool.submit(Job(number, run, from_yaml(run.config.read_text())))
while True:
    pool.poll(60)
"""


def test_a_killed_controller_takes_all_along(tmp_path: Path) -> None:
    configs = (endless(), endless(devices=2), quick_config(how="hang"))
    jobs = [new_job(tmp_path, number, config) for number, config in enumerate(configs)]
    command = [sys.executable, "-c", CONTROLLER, *(str(job.run.path) for job in jobs)]
    controller = subprocess.Popen(command, cwd=tmp_path)
    try:
        until(lambda: all(job.run.metrics.exists() for job in jobs[:2]), seconds=PATIENCE)
        until(lambda: (jobs[2].run.path / "told.0.json").exists())
        told = [json.loads((job.run.path / "told.0.json").read_text()) for job in jobs]
        server = int(told[0]["environment"]["LITLAB_PARENT"])
        everybody = [server, *(pid for each in told for pid in group(each["group"]))]
        assert len(everybody) == 1 + 1 + 3 + 1
        os.killpg(told[0]["group"], signal.SIGSTOP)  # as `pause` does
    finally:
        controller.kill()
        controller.wait()
    killed = time.monotonic()
    until(lambda: not any(map(is_alive, everybody)), seconds=7)
    assert time.monotonic() - killed > 2.5, "the one that hangs was given time"
    for job in jobs[:2]:
        assert read_result(job.run)["status"] == "interrupted"
        assert job.run.last.exists()
