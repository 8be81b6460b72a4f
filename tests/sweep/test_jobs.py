"""What goes on is on record in its provenance.json, and said where the code is another one now."""

from pathlib import Path

import pytest
from support.composed_jobs import begin, plan_of, provenance, seeds

from litlab.runs.lock import directory_lock
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Study


def test_a_job_that_goes_on_is_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    done, stopped, failed, _, running = (job.run for job in begin(path, range(5)))
    write_result(done, Result(RunStatus.COMPLETED, ""))
    write_result(stopped, Result(RunStatus.INTERRUPTED, ""))
    write_result(failed, Result(RunStatus.FAILED, ""))
    study = Study.load_own(path)
    with study.lock(), directory_lock(running.path):
        study.write_plan(plan_of(range(5), tmp_path))
        create_jobs(study, seeds(study, range(5)), provenance(tmp_path) | {"code": {"commit": "another"}})
    entries = [run.read_json(run.provenance).get("resumed", []) for _, run in study.jobs()]
    assert [len(each) for each in entries] == [0, 1, 1, 0, 0]
    assert (entries[1][0]["code"], entries[1][0]["changed"]) == ({"commit": "another"}, {})
    assert capsys.readouterr().err.count("note: the project's code has changed since") == 1
