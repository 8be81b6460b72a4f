"""`litlab.train` and `litlab.results` as a script or notebook calls them; the commands are processes of their own."""

import asyncio
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from support.processes import processes_in
from support.runs import TINY
from support.studies import make_run

import litlab
from litlab.api import Results
from litlab.errors import InUseError, RunFailed, UserError
from litlab.process.signals import STOP_SIGNALS
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

SHORT = (*TINY, "trainer.max_epochs=1")
PATIENCE = 90  # seconds; a machine may be busy
SCRIPT = """
import sys, litlab
try:
    litlab.train(sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted")
"""


def surroundings() -> dict[str, Any]:
    """Return what a call must not change in this process."""
    root = logging.getLogger()
    return {
        "folder": Path.cwd(),
        "arguments": list(sys.argv),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(signum) for signum in (*STOP_SIGNALS, signal.SIGTSTP)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "logging": (root.level, list(root.handlers), logging.raiseExceptions),
        "hydra": (GlobalHydra.instance().is_initialized(), HydraConfig.instance().cfg),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def single(project: Path) -> tuple[Results, str]:
    """Train a run in a project's folder, of a process that is elsewhere; with what it printed."""
    before, output = surroundings(), io.StringIO()
    with redirect_stdout(output):
        results = litlab.train([*SHORT, "hydra.run.dir=outputs/single"], project)
    assert surroundings() == before
    return results, output.getvalue()


@pytest.fixture(scope="module")
def study(project: Path) -> Results:
    return litlab.train(["-m", *SHORT, "seed=0,1", "optimizer.lr=0.1,0.01", "study.name=lr"], project)


def test_a_single_run(single: tuple[Results, str], project: Path) -> None:
    results, output = single
    run = RunDirectory(project / "outputs" / "single")
    result = read_result(run)
    assert results.run.directory == run.path
    assert (results.run.test, results.run.objective) == (result["test"], result["objective"])
    assert (results.run.status, results.run.is_completed, results.run.seed) == ("completed", True, 0)
    assert results.run.settings["data.batch_size"] == 16
    assert results.run.history("val/accuracy") == {10: result["best"]["val/accuracy"]}
    assert "epoch 1/1 validation" in output
    assert "\x1b" not in output
    with pytest.raises(UserError, match=r"has no values of val/acuracy; known: .*val/accuracy"):
        results.run.history("val/acuracy")
    command = run.read_json(run.provenance)["command"]
    assert command == ["litlab", "train", *SHORT, "hydra.run.dir=outputs/single"]


def test_values_of_a_run_whose_metrics_are_damaged_or_missing(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"seed": 0}, 0.5)
    result = litlab.results(tmp_path / "run").run
    file = RunDirectory(result.directory).metrics
    file.write_text("epoch,step\n1,2\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged: .*expected the header"):
        result.history("val/loss")
    file.write_text("epoch,step,metric,value\n0,1,\x1b[2Jloss,0.5\n")
    with pytest.raises(UserError, match=r"has no values of val/loss; known:  \[2Jloss$"):
        result.history("val/loss")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged: .*not a regular file"):
        result.history("val/loss")
    file.unlink()
    with pytest.raises(UserError, match=r"has no values of val/loss: it has no metrics\.csv$"):
        result.history("val/loss")


@pytest.mark.usefixtures("single")
def test_a_multirun_is_a_table(study: Results, project: Path) -> None:
    assert len(study) == 4
    rows = study.rows()
    assert [(row["lr"], row["seed"]) for row in rows] == [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]
    assert rows[0]["val/accuracy"] == study[0].best["val/accuracy"]
    assert rows[0]["test/accuracy"] == read_result(RunDirectory(study[0].directory))["test"]["test/accuracy"]
    lines = repr(study).splitlines()
    assert re.match(r"run +status +seed +lr +val/", lines[0])
    assert re.match(r"0000_lr-0\.1_seed-0 +completed +0 +0\.1 +\d", lines[1])
    with pytest.raises(UserError, match="there are 4 results: choose one by its index"):
        _ = study.run
    again = litlab.results(project / "outputs" / "lr")
    assert again.rows() == rows
    both = litlab.results(str(project / "outputs"))
    assert len(both) == 5


def test_a_network_is_loaded_and_shown(single: tuple[Results, str]) -> None:
    text = repr(single[0].run.load())
    assert re.fullmatch(
        r"Predictor\(CNN with [\d,]+ parameters, for images of 32x32x3; 10 classes: disk, ring, .*corner\)", text
    )


def test_there_are_no_results_without_runs(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results: .*nothing: no such directory"):
        litlab.results(tmp_path / "nothing")
    with pytest.raises(UserError, match="no results: name a run directory, a study, or a folder of them"):
        litlab.results()


def test_a_data_frame_needs_pandas(study: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"to_pandas\(\) needs the package pandas: pip install pandas"):
        study.to_pandas()


def test_a_data_frame_has_a_row_for_each_run(study: Results) -> None:
    frame = study.to_pandas()
    assert frame.groupby("lr")["val/accuracy"].count().to_dict() == {0.01: 2, 0.1: 2}
    assert frame["seed"].dtype.kind == "i"


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (["data.batchsize=3"], UserError, r"^data\.batchsize: unknown key; did you mean data\.batch_size\?$"),
        (["seed=0,1"], UserError, "several values; add -m to run a job for each of them"),
        (["-m", "seed=a,b"], UserError, "seed=a: expected a valid integer"),
        (["seed=1", 3], UserError, r"^litlab\.train: expected texts as arguments, such as 'seed=1'; found 3$"),
        ("seed=1", UserError, r"expected a list of arguments, as in litlab\.train\(\['seed=1'\]\)"),
        ([*TINY, "data=image_folder", "~data.num_train", "~data.num_test", "data.root=nothing"], UserError, "data.num"),
    ],
)
def test_errors_are_exceptions_with_the_message_of_the_command(
    arguments: Any, error: type[Exception], expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = surroundings()
    with pytest.raises(error, match=expected) as raised:
        litlab.train(arguments, tmp_path)
    assert type(raised.value) is error
    assert surroundings() == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_the_worker_refuses_raises_its_message(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"task\.freeze: 'nothing' matches no parameter of CNN") as failed:
        litlab.train([*SHORT, "task.freeze=[nothing]"], tmp_path)
    assert failed.value.exit_code == 1
    assert not (tmp_path / "outputs").exists()


def test_a_command_that_exits_by_itself_is_not_called_a_worker(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"^litlab train ended with exit code 2; its output says why$") as failed:
        litlab.train(["--nothing"], tmp_path)
    assert failed.value.exit_code == 2


def test_runs_that_fail_raise_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Fails(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n        raise RuntimeError('no luck')\n"
    )
    arguments = [*SHORT, "+callbacks.fails={_target_: failing.Fails}"]
    with pytest.raises(RunFailed, match=r"(?s)outputs/one failed: .*no luck") as failed:
        litlab.train([*arguments, "hydra.run.dir=outputs/one"], tmp_path)
    assert failed.value.exit_code == 1
    expected = r"2 of 2 runs of \S+/outputs/s did not complete; 0000_seed-0 failed: RuntimeError: no luck$"
    with pytest.raises(RunFailed, match=expected):
        litlab.train(["-m", *arguments, "seed=0,1", "study.name=s"], tmp_path)


def test_a_study_in_use_is_an_error_of_its_own(study: Results, project: Path) -> None:
    arguments = ["-m", *SHORT, "seed=0,1", "optimizer.lr=0.1,0.01", "study.name=lr"]
    with directory_lock(project / "outputs" / "lr"), pytest.raises(InUseError):
        litlab.train(arguments, project)


def test_a_dry_run_has_no_results(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = litlab.train([*SHORT, "--dry-run"], project)
    assert (len(results), repr(results)) == (0, "no results")
    assert "nothing was started or written" in capsys.readouterr().out


def test_two_calls_at_once_in_the_event_loop_of_a_notebook(tmp_path: Path) -> None:
    async def cell() -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            loop = asyncio.get_running_loop()
            calls = [
                loop.run_in_executor(pool, litlab.train, [*SHORT, f"seed={seed}", f"hydra.run.dir=r{seed}"], tmp_path)
                for seed in (3, 4)
            ]
            return await asyncio.gather(*calls)

    before = surroundings()
    results = asyncio.run(cell())
    assert [result.run.seed for result in results] == [3, 4]
    assert surroundings()["handlers"] == before["handlers"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "the caller is killed"])
@pytest.mark.parametrize("multirun", [(), ("-m", "seed=0,1", "hydra.launcher.jobs=1")], ids=["run", "multirun"])
def test_an_interrupted_call_saves_and_stops(end: signal.Signals, multirun: tuple[str, ...], tmp_path: Path) -> None:
    place = "hydra.sweep.dir=s" if multirun else "hydra.run.dir=s/0000_seed-0"
    arguments = [*multirun, *TINY, "trainer.max_epochs=10000", place, "checkpoint.every_steps=null"]
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    run = RunDirectory(tmp_path / "s" / "0000_seed-0")
    wait_until(lambda: run.metrics.exists() and run.metrics.read_text().count("val/accuracy") > 2)
    script.send_signal(end)
    output, _ = script.communicate(timeout=PATIENCE)
    if end == signal.SIGINT:
        assert (script.returncode, output.splitlines()[-1]) == (0, "interrupted")
    wait_until(lambda: run.result.exists() and not processes_in(tmp_path))
    result = json.loads(run.result.read_text())
    assert result["status"] == "interrupted"
    assert re.search(r"saved at step \d+", result["error"])
    (found,) = [entry for entry in litlab.results(tmp_path / "s") if entry.directory == run.path]
    assert (found.status, found.is_completed) == ("interrupted", False)
    assert run.last.exists()
