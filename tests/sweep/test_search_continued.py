"""A search that was interrupted, or whose files have changed: what goes on, what is refused, what is said then."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.search_jobs import (
    FEW,
    LR,
    NAMES,
    WIDTH,
    Machine,
    best_at,
    drive,
    plan_of,
    run_search,
    search_of,
    states,
)  # fmt: skip

from hydra_plugins.litlab_search import _report
from litlab.config.search_space import Choices
from litlab.errors import RunFailed, UserError
from litlab.process.controller import RunStopped
from litlab.runs.metrics import MetricsWriter
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.search.source import SearchSource
from litlab.sweep.study import Study


def test_a_job_that_others_stop_goes_on_but_not_for_ever(tmp_path: Path) -> None:
    machine = Machine(best_at(0.03))
    machine.disturbances = {0: 1, 1: 2}
    source = run_search(tmp_path / "s", machine, LR, trials=3)
    assert states(source) == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert [source.outcomes[number].status for number in range(3)] == ["completed", "interrupted", "completed"]
    search = search_of(Study.load_own(tmp_path / "s"), LR, trials=3)
    with pytest.raises(RunFailed):
        _report(search, Study.load(tmp_path / "s"), source, None)
    again = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=3)
    assert states(again) == ["COMPLETE"] * 3
    recorded = [run.read_json(run.provenance).get("resumed", []) for _, run in Study.load(tmp_path / "s").jobs()]
    assert [len(each) for each in recorded] == [0, 1, 0], "by a command; within one it is the same one"


def test_the_end_says_to_continue_only_where_something_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(best_at(0.03))
    machine.fails = lambda point: "no memory"
    source = run_search(tmp_path / "s", machine, LR, trials=1)
    search, study = search_of(Study.load_own(tmp_path / "s"), LR, trials=1), Study.load(tmp_path / "s")
    with pytest.raises(RunFailed):
        _report(search, study, source, None)
    _report(search, study, run_search(tmp_path / "s", machine, LR, trials=1), None)
    said = capsys.readouterr().out
    assert "1 job: 1 failed" in said
    assert "no job was started" in said
    assert "litlab resume" not in said
    with pytest.raises(RunStopped):
        _report(search, study, source, 15)
    assert "litlab resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "state"),
    [("completed", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"), ("interrupted", "RUNNING")],
)
def test_trials_left_running_are_told_what_the_files_say(tmp_path: Path, status: str, state: str) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, trials=1)
    with study.lock():
        study.write_plan(plan_of(search))
        job = SearchSource(search, study, Machine(best_at(0.03))).next_job(lambda config: True)
        assert job is not None
        write_result(job.run, Result(status, "", best={"val/accuracy": 0.5}, error="so"))  # type: ignore[arg-type]
        source = SearchSource(search, study, Machine(best_at(0.03)))
        assert states(source) == [state]
        assert source.is_exhausted() == (state != "RUNNING")
        again = source.next_job(lambda config: True)
        assert (again is not None and again.number == 0) == (state == "RUNNING")


def test_a_validation_is_reported_once_however_often_the_run_is_cut_back(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, trials=1, pruner="median")
    with study.lock():
        study.write_plan(plan_of(search))
        source = SearchSource(search, study, Machine(best_at(0.03)))
        job = source.next_job(lambda config: True)
        assert job is not None
        validate(job, 1, 2, 3)
        assert source.jobs_to_prune([job]) == []
        text = job.run.metrics.read_text()
        job.run.metrics.write_text("".join(text.splitlines(keepends=True)[:4]))  # back to the first checkpoint
        assert source.jobs_to_prune([job]) == []
        validate(job, 2, 3, 4)
        assert source.jobs_to_prune([job]) == []
        after_restart = SearchSource(search, study, Machine(best_at(0.03)))
        assert after_restart.jobs_to_prune([job]) == []
        validate(job, 5)
        after_restart.job_ended(job, Outcome(RunStatus.COMPLETED, "", (), {"best": {"val/accuracy": 0.5}}, 1.0))
    assert after_restart.error is None
    (trial,) = after_restart.trials.trials
    assert trial.intermediate_values == {place: place / 10 for place in range(1, 6)}


def validate(job: Job, *epochs: int) -> None:
    writer = MetricsWriter(job.run.metrics)
    for epoch in epochs:
        writer.append(epoch - 1, 10 * epoch, {"val/loss": 7.0, "val/accuracy": epoch / 10, "train/loss": 3.0})
    writer.close()


def test_a_search_whose_trials_are_gone_is_not_continued(tmp_path: Path) -> None:
    run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=2)
    (tmp_path / "s" / "search.db").unlink()
    with pytest.raises(UserError, match="don't have job 0"):
        run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=3)


def test_another_space_is_another_study(tmp_path: Path) -> None:
    run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=1)
    with pytest.raises(UserError, match=r"the space of the search has changed:\n  model.width"):
        run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=3)


def test_choices_that_have_changed_are_another_space(tmp_path: Path) -> None:
    run_search(tmp_path / "s", Machine(best_at(0.03)), NAMES, FEW, trials=1)
    more = replace(NAMES, domain=Choices(("a", "b", "c", "d")))
    with pytest.raises(UserError, match=r"the space of the search has changed:\n  model.name"):
        run_search(tmp_path / "s", Machine(best_at(0.03)), more, FEW, trials=3)
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, more, FEW, trials=3)
    with pytest.raises(UserError, match="can't be read or written: CategoricalDistribution does not support"):
        drive(study, SearchSource(search, study, Machine(best_at(0.03))))


def test_a_job_to_be_continued_whose_config_is_damaged(tmp_path: Path) -> None:
    machine = Machine(best_at(0.03))
    machine.disturbances = {0: 9}
    run_search(tmp_path / "s", machine, LR, trials=1)
    (tmp_path / "s" / "0000" / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"0000/config\.yaml is damaged"):
        run_search(tmp_path / "s", machine, LR, trials=1)
