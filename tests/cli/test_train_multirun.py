"""`litlab train -m`: a directory for each job, named by what varies; what is wrong is said before anything is there.

By the pool, which is the default, and by Hydra's own launcher and sweeper, which go on working.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import TINY, call_cold, call_litlab

from litlab.cli.main import main
from litlab.config.config_file import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

SHORT = (*TINY, "trainer.max_epochs=1")
COUNTED = ("trainer.devices=auto", "trainer.accelerator=auto")  # the worker counts devices, by torch


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a multirun of two seeds in an empty folder."""
    folder = tmp_path_factory.mktemp("multirun")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("OMP_NUM_THREADS")  # the tests' own
        done = call_cold(folder, "train", "-m", *SHORT, *COUNTED, "seed=0,1")
    assert done.returncode == 0, done.stderr
    return folder


def test_each_job_is_a_complete_run_in_a_directory_of_its_own(project: Path) -> None:
    (study,) = (project / "outputs" / "shapes_cnn").iterdir()
    assert re.fullmatch(r"multirun_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}", study.name)
    jobs = sorted(path for path in study.iterdir() if (path / "config.yaml").exists())
    assert [path.name for path in jobs] == ["0000_seed-0", "0001_seed-1"]
    results = []
    for number, path in enumerate(jobs):
        run = RunDirectory(path)
        assert from_yaml(run.config.read_text())["seed"] == number
        results.append(read_result(run))
        assert (results[-1]["status"], results[-1]["steps"]) == ("completed", 10)
        assert run.best.exists()
        assert {row.metric for row in read_metrics(run.metrics)} >= {"train/loss", "val/accuracy", "test/accuracy"}
        assert (path / ".hydra" / "overrides.yaml").exists()
        assert run.read_json(run.provenance)["machine"]["threads"] == 1
    assert results[0]["identity"] != results[1]["identity"]
    assert results[0]["test"] != results[1]["test"]


def called(
    folder: Path, *arguments: str, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line in this process, which has imported all already."""
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["litlab", *arguments])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    output = capture.readouterr()
    return code, output.out, output.err


def test_all_that_is_wrong_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", *SHORT, "study.name=mine", "optimizer.lr=-1,0.05", "seed=0,-1", "model=cnn,cn", "-m")
    code, _, said = called(tmp_path, *arguments, patch=monkeypatch, capture=capsys)
    assert code == 1
    lines = said.splitlines()
    assert len(lines) == 4, said
    for expected in (
        "optimizer.lr=-1: expected greater",
        "seed=-1: expected",
        "model=cn: no such config; did you mean",
    ):
        assert any(expected in line for line in lines)
    assert "(in 4 of 8 jobs: optimizer.lr=-1 seed=0 model=cn and 3 more)" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["hydra.launcher.jobs=0"], {}, "hydra.launcher.jobs=0: expected greater than or equal to 1"),
        (["hydra.launcher.timeout=-1"], {}, "hydra.launcher.timeout=-1: expected greater than 0"),
        (["hydra.launcher.job=1"], {}, "hydra.launcher.job: unknown key; did you mean hydra.launcher.jobs?"),
        (["optimizer.lr=range(0,0)"], {}, "optimizer.lr=range(0,0): an empty axis"),
        (["+hydra.job.env_set.A=b"], {}, "hydra.job.env_set"),
        (["--dry-run", "hydra/launcher=basic"], {}, "--dry-run: expected hydra/launcher=pool"),
        (["--dry-run", "hydra/sweeper=basic"], {}, "--dry-run: expected hydra/sweeper=grid or search"),
        (["--dry-run", "trainer.devices=1,999", "data.batch_size=999"], {}, "trainer.devices=999: this machine has"),
        (["--dry-run", "trainer.num_nodes=2"], {}, "trainer.num_nodes=2: the pool is one machine"),
        (["hydra/launcher=basic", "hydra/sweeper=basic"], {"TORCHELASTIC_RUN_ID": "1"}, "-m under torchrun"),
        ([], {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "-m under torchrun"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    arguments: list[str],
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, said = called(tmp_path, "train", "-m", *SHORT, "seed=0,1", *arguments, patch=monkeypatch, capture=capsys)
    assert (code, said.startswith(f"litlab: {expected}")) == (1, True), said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_new_study_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = (
        "name=job_${hydra:job.num}",
        "seed=0,1,1",
        "optimizer.lr=1,2,3",
        "hydra.sweeper.paired=[seed,optimizer.lr]",
        "study.name=mine",
    )
    code, table, said = called(tmp_path, "train", *SHORT, *sweep, "-m", "--dry-run", patch=monkeypatch, capture=capsys)
    assert (code, said) == (0, "")
    assert table.splitlines() == [
        "0000_lr-1_seed-0  new          seed=0 optimizer.lr=1",
        "0001_lr-2_seed-1  new          seed=1 optimizer.lr=2",
        "0002_lr-3_seed-1  new          seed=1 optimizer.lr=3",
        "",
        "3 jobs (3 new) in outputs/mine; nothing was started or written",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_study_says_what_is_done(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study,) = (project / "outputs" / "shapes_cnn").iterdir()
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    asked = (*SHORT, *COUNTED, "seed=0,1,2,2", f"hydra.sweep.dir={study.relative_to(project)}")
    code, table, said = called(project, "train", "-m", *asked, "--dry-run", patch=monkeypatch, capture=capsys)
    assert code == 0, said
    assert said == "litlab: 4 points are 3 different experiments, each a job\n"
    assert [line.split()[:2] for line in table.splitlines()[:3]] == [
        ["0000_seed-0", "completed"], ["0001_seed-1", "completed"], ["0002_seed-2", "new"],
    ]  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


@pytest.mark.parametrize("wrong", [False, True])
def test_a_dry_run_of_a_single_run(
    wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["optimizer.lr=-1"] if wrong else []
    code, text, said = called(tmp_path, "train", "--dry-run", *SHORT, *more, patch=monkeypatch, capture=capsys)
    if wrong:
        assert (code, text, said) == (1, "", "litlab: optimizer.lr=-1: expected greater than 0\n")
    else:
        assert (code, said) == (0, "")
        assert text.startswith(f"a single run in {tmp_path}/outputs/shapes_cnn/")
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_hydras_own_launcher_that_fails_makes_the_command_fail(tmp_path: Path) -> None:
    """Under Hydra's own sweeper: a bad value, a split that only a worker finds impossible, another bad value."""
    hydras = ("hydra/launcher=basic", "hydra/sweeper=basic", "study.name=mine")
    sweep = ("data.num_train=30", "optimizer.lr=-1,0.05,-2")
    done = call_litlab(tmp_path, "train", "-m", *SHORT, *hydras, *sweep)
    assert done.returncode == 1
    assert "optimizer.lr=-1: expected greater than 0" in done.stderr
    study = tmp_path / "outputs" / "mine"
    (job,) = [path for path in study.iterdir() if (path / "config.yaml").exists()]
    assert job.name == "0001_lr-0.05", "the others left nothing behind"
    assert (study / "multirun.yaml").exists()
    result = read_result(RunDirectory(job))
    assert result["status"] == "refused", "it went on after the first had failed"
    assert "val_size" in result["error"]
    assert from_yaml(RunDirectory(job).config.read_text())["study"]["swept"] == ["optimizer.lr"]


def test_hydras_own_launcher_can_be_given_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "-m", *SHORT, "hydra/launcher=basic", "study.name=mine", "optimizer.lr=-1,-2")
    code, _, said = called(tmp_path, *arguments, patch=monkeypatch, capture=capsys)
    assert code == 1
    assert "optimizer.lr=-1: expected greater than 0" in said
    assert not list(tmp_path.rglob("config.yaml")), "neither left anything behind"


def test_hydras_own_sweeper_can_use_the_pool(tmp_path: Path) -> None:
    """In batches, each of which continues the study."""
    sweeper = ("hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1", "study.name=mine")
    done = call_litlab(tmp_path, "train", "-m", *SHORT, *sweeper, "seed=0,1")
    assert done.returncode == 0, done.stderr
    study = tmp_path / "outputs" / "mine"
    jobs = sorted(path for path in study.iterdir() if (path / "config.yaml").exists())
    assert [path.name for path in jobs] == ["0000_seed-0", "0001_seed-1"]
    assert [read_result(RunDirectory(path))["status"] for path in jobs] == ["completed"] * 2


def test_a_process_that_only_imports_the_job_can_resolve_its_config() -> None:
    """So a launcher has it that calls the job in a process of its own."""
    code = "import litlab.cli.train, omegaconf; print(omegaconf.OmegaConf.create({'x': '${litlab.id:}'}).x)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.fullmatch(r"[0-9a-f]{6}\n", done.stdout), done.stderr


@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_a_place_that_cannot_be_written(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["litlab", "train", f"hydra.mode={mode}", "name=mine", "trainer=cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("litlab: outputs/mine/")
    assert "Not a directory" in said
    assert "hydra.run.dir=" in said
