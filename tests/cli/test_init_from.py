"""`init_from` on the command line: what is refused before anything is written, multiruns, reruns, comparisons."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import TINY, Command
from support.warm import WarmProcess

from litlab.compare.collect import collect
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

Call = Callable[..., tuple[int, str, str]]
SHORT = (*TINY, "trainer.max_epochs=1")
PATIENCE = 60  # seconds


@pytest.fixture
def sources(litlab: Command, tiny_run: RunDirectory, tmp_path: Path) -> Path:
    """Put a run, `run`, and another state of its network, `other.pt`, into the user's project."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_run.path, folder / "run")
    state = read_checkpoint(tiny_run.best)["state_dict"]
    torch.save({name: value / 2 for name, value in state.items()}, folder / "other.pt")
    return folder


def runs_in(folder: Path) -> list[RunDirectory]:
    return [RunDirectory(path.parent) for path in sorted(folder.rglob("config.yaml")) if path.parent.name != ".hydra"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nothing", "init_from=nothing: no such file or run directory"),
        ("5", "init_from=5: expected the path of a run directory or of a file with weights"),
        ("empty", "init_from=empty: is no run directory, since it has no config.yaml"),
    ],
)
@pytest.mark.parametrize("multirun", [(), ("-m", "seed=0,1")])
def test_what_is_no_source_is_refused_before_anything_is_written(
    value: str, expected: str, multirun: tuple[str, ...], tmp_path: Path, call_here: Call
) -> None:
    (tmp_path / "empty").mkdir()
    code, output, errors = call_here(tmp_path, "train", *multirun, *SHORT, f"init_from={value}")
    assert (code, output) == (1, "")
    assert errors.startswith(f"litlab: {expected}")
    assert len(errors.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_weights_of_another_network_leave_no_directory(sources: Path, litlab: Command) -> None:
    done = litlab("train", *SHORT, "init_from=run", "model.widths=[3,5]", "model.hidden=[7]")
    assert done.returncode == 1
    assert done.stderr == (
        "litlab: init_from=run/checkpoints/best.ckpt: only the last layer (network.classifier.2.bias) fits, so these "
        "are the weights of another network; choose the model that they were trained with\n"
    )
    assert not (sources / "outputs").exists()


def test_the_content_counts_for_the_identity_and_not_the_path(sources: Path, litlab: Command) -> None:
    """A copy elsewhere gives the same job, also where the weights are an axis; another content another one."""
    shutil.copy(sources / "run" / "checkpoints" / "best.ckpt", sources / "copy.ckpt")
    done = litlab("train", "-m", *SHORT, "init_from=run,copy.ckpt,other.pt", "--dry-run", "study.name=s")
    assert done.returncode == 0, done.stderr
    assert "3 points are 2 different experiments" in done.stderr


@pytest.mark.integrations
def test_a_job_that_waits_does_not_need_the_source(sources: Path, litlab: Command) -> None:
    arguments = ("train", "-m", *SHORT, "init_from=run,other.pt,null", "hydra.launcher.jobs=1", "study.name=s")
    process = WarmProcess(["litlab", *arguments], sources, stdout=sources / "out", stderr=sources / "err")
    study, deadline = sources / "outputs" / "s", time.monotonic() + PATIENCE
    while not (study / "jobs.jsonl").exists():
        assert time.monotonic() < deadline, (sources / "err").read_text()
        time.sleep(0.02)
    shutil.rmtree(sources / "run")
    (sources / "other.pt").unlink()
    assert process.wait(timeout=PATIENCE) == 0, (sources / "err").read_text()

    from_run, from_file, fresh = runs_in(study)
    records = [run.read_json(run.provenance).get("init_from", {}) for run in (from_run, from_file, fresh)]
    assert [record.get("fraction") for record in records] == [1.0, 1.0, None]
    assert len({read_result(run)["identity"] for run in (from_run, from_file, fresh)}) == 3
    assert not fresh.initial_weights.exists()
    runs, _ = collect([study])
    assert [str(run.settings["init_from"]) for run in runs] == [str(sources / "run"), str(sources / "other.pt"), "None"]

    done = litlab("rerun", str(from_run.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "IDENTICAL to the last bit" in done.stdout
    done = litlab("compare", "outputs/s")
    assert re.search(r"^init_from +n", done.stdout, re.MULTILINE), done.stdout
    assert all(re.search(rf"^{name} ", done.stdout, re.MULTILINE) for name in ("run", r"other\.pt", "null"))


def test_two_ranks_start_from_the_weights_that_one_process_starts_from(sources: Path, litlab: Command) -> None:
    settings = (*SHORT, "init_from=run", "optimizer.lr=1e-30")
    done = litlab("train", *settings, "trainer.devices=2", "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert "init_from    run/checkpoints/best.ckpt: 8 of 8 tensors, 100.0 % of the parameters" in done.stdout
    assert done.stdout.count("init_from  ") == 1
    run = RunDirectory(sources / "two")
    before = read_checkpoint(sources / "run" / "checkpoints" / "best.ckpt")["state_dict"]
    after = read_checkpoint(run.last)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_run_keeps_its_start(sources: Path, litlab: Command, tmp_path: Path) -> None:
    done = litlab("train", *SHORT, "init_from=run", "hydra.run.dir=new")
    assert done.returncode == 0, done.stderr
    done = litlab("resume", "new", "init_from=other.pt")
    assert done.returncode == 1
    assert "would make it another experiment" in done.stderr
