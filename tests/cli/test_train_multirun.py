"""Tests of `litlab train -m` with the pool and with Hydra's own launcher and sweeper: directories, dry runs, errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import TINY, call_cold, call_litlab

from litlab.config.config_file import from_yaml
from litlab.process.device_leases import DeviceLeases
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.metrics import read_metrics
from litlab.runs.processor import num_cores
from litlab.runs.result import read_result
from litlab.sweep.study import Study

Call = Callable[..., tuple[int, str, str]]
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


def jobs_in(study: Path) -> list[Path]:
    return sorted(config.parent for config in study.glob("*/config.yaml"))


def planned_seeds(study: Path) -> list[int] | None:
    plan = Study.load_own(study).plan
    assert plan is not None
    return plan.planned_seeds


@pytest.mark.integrations
def test_each_job_is_a_complete_run_in_a_directory_of_its_own(project: Path) -> None:
    (study,) = (project / "outputs" / "shapes_cnn").iterdir()
    assert re.fullmatch(r"multirun_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}", study.name)
    jobs = jobs_in(study)
    assert [path.name for path in jobs] == ["0000_seed-0", "0001_seed-1"]
    assert planned_seeds(study) == [2]
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


@pytest.mark.integrations
def test_an_ablation_is_run_grown_and_compared(tmp_path: Path, call_here: Call) -> None:
    command = ("train", "-m", *TINY, "trainer.max_epochs=1", "study.name=a", "seed=0,1")
    ablate = "{no_flip:[data.flip=false],adamw:[optimizer=adamw,optimizer.lr=1e-3]}"
    done = call_litlab(tmp_path, *command, f"study.ablate={ablate}")
    assert done.returncode == 0, done.stderr
    assert "litlab compare outputs/a --ablation" in done.stdout
    study = tmp_path / "outputs" / "a"
    names = ["full", "no_flip", "adamw", "all"]
    jobs = [f"{2 * number + seed:04d}_{name}_seed-{seed}" for number, name in enumerate(names) for seed in (0, 1)]
    assert [path.name for path in jobs_in(study)] == jobs
    config = from_yaml((study / jobs[7] / "config.yaml").read_text())
    assert config["study"]["ablation"] == ["no_flip", "adamw"]
    assert config["data"]["flip"] is False
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    code, table, _ = call_here(tmp_path, "compare", "outputs/a", "--ablation")
    assert code == 0
    changes = [line.split("  ")[0] for line in table.splitlines()[2:6]]
    assert [changes[0], changes[3], {*changes[1:3]}] == ["full recipe", "all together", {"no_flip", "adamw"}]
    assert "optimizer=adamw optimizer.lr=1e-3" in table

    grown = ablate.replace("{no_flip", "{small:[model.hidden=[4]],no_flip")
    code, listed, errors = call_here(tmp_path, *command, f"study.ablate={grown}", "--dry-run")
    assert code == 0, errors
    assert [line.split()[:2] for line in listed.splitlines()[:10]] == [
        [job, status]
        for job, status in [
            *((job, "completed") for job in jobs[:2]),
            ("0008_small_seed-0", "new"), ("0009_small_seed-1", "new"),
            *((job, "completed") for job in jobs[2:6]),
            ("0010_all_seed-0", "new"), ("0011_all_seed-1", "new"),
        ]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["study.ablate={a:[data.flip=true],b:[data.flip=false]}"], "study.ablate.a: changes nothing that the results"),
        (["study.ablate={a:[data.flip=false],b:[data.flip=false]}"], "study.ablate.b: is the same experiment as a"),
        (["study.ablate={all:[data.flip=false]}"], "study.ablate: 'all' is no name for a change"),
        (["study.ablate={a:[seed=3]}"], "study.ablate.a: seed=3: a change is a part of the recipe"),
        (["study.ablate={a:[data.flp=false]}"], "data.flp: unknown key; did you mean data.flip?"),
        (["study.ablate={a:[model.hidden=[-1]]}"], "(in 2 of 4 jobs: seed=0 study.ablation=[a] and 1 more)"),
        (["study.ablate=3"], "study.ablate: expected changes by name, as in {no_flip: [data.flip=false]}"),
        (
            ["study.ablate={a:[data.flip=false]}", "hydra/sweeper=search", "hydra.sweeper.trials=2"],
            "study.ablate: an ablation is a multirun of the grid sweeper",
        ),
    ],
)
def test_ablations_that_are_refused_before_anything_is_written(
    arguments: list[str], expected: str, tmp_path: Path, call_here: Call
) -> None:
    code, _, errors = call_here(tmp_path, "train", "-m", *SHORT, "study.name=a", "seed=0,1", *arguments)
    assert code == 1
    assert expected in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_all_problems_are_reported_at_once(tmp_path: Path, call_here: Call) -> None:
    arguments = ("train", *SHORT, "study.name=mine", "optimizer.lr=-1,0.05", "seed=0,-1", "model=cnn,cn", "-m")
    code, _, errors = call_here(tmp_path, *arguments)
    assert (code, len(errors.splitlines())) == (1, 4)
    assert "optimizer.lr=-1: expected greater" in errors
    assert "seed=-1: expected" in errors
    assert "model=cn: no such config; did you mean" in errors
    assert "(in 4 of 8 jobs: optimizer.lr=-1 seed=0 model=cn and 3 more)" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra.launcher.jobs=0"], "hydra.launcher.jobs=0: expected greater than or equal to 1"),
        (["hydra.launcher.timeout=-1"], "hydra.launcher.timeout=-1: expected greater than 0"),
        (
            ["hydra.launcher.backend=x"],
            "hydra.launcher.backend=x: choose a launcher by hydra/launcher=pool",
        ),
        (["hydra.launcher.job=1"], "hydra.launcher.job: unknown key; did you mean hydra.launcher.jobs?\n"),
        (["optimizer.lr=range(0,0)"], "optimizer.lr=range(0,0): an empty axis"),
        (
            ["model=glob(*)"],
            "model=glob(*): model=timm has no value for model.name and model=torchvision has no value for model.name; "
            "leave out what has none, as in 'model=glob(*,exclude=[timm,torchvision])', or name the configs: cnn,",
        ),
        (["+hydra.job.env_set.A=b"], "hydra.job.env_set"),
        (["--dry-run", "hydra/launcher=basic"], "--dry-run: expected hydra/launcher=pool, slurm or ray; no other"),
        (["--detach"], "--detach: expected hydra/launcher=slurm or ray; the jobs of other launchers end"),
        (["--dry-run", "hydra/sweeper=basic"], "--dry-run: expected hydra/sweeper=grid, search or decide"),
        (["--dry-run", "trainer.devices=1,999", "data.batch_size=999"], "trainer.devices=999: this machine has"),
        (["--dry-run", "trainer.num_nodes=2"], "trainer.num_nodes=2: the pool is one machine"),
    ],
)
def test_impossible_multiruns_are_refused_before_anything_starts(
    arguments: list[str], expected: str, tmp_path: Path, call_here: Call
) -> None:
    code, _, errors = call_here(tmp_path, "train", "-m", *SHORT, "seed=0,1", *arguments)
    assert (code, errors.startswith(f"litlab: {expected}")) == (1, True), errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integrations
def test_the_test_of_a_comparison_follows_from_plan_and_looks(tmp_path: Path, call_here: Call) -> None:
    """A study is looked at before its planned seeds are completed, then with all of them, then with one more.

    The planned number is that of study.seeds or of the axis, and later larger ones; it is no part of the identity.
    """
    study = tmp_path / "outputs" / "s"
    sequential = "sequential over up to 3 planned seeds, valid at every look"
    completed: dict[Path, int] = {}
    for seeds, plan, planned, expected in (
        ("0,1", ["study.seeds=3"], [3], f"{sequential} (not every group has all 3 seeds yet"),
        ("0,1,2", [], [3], f"{sequential} (looked at before all 3 seeds were completed"),
        ("0,1,2,3", ["study.seeds=4"], [3, 4],
         "sequential over any number of seeds, valid at every look (the plan was extended from 3 to 4 seeds"),
    ):  # fmt: skip
        arguments = ("train", "-m", *SHORT, "study.name=s", "optimizer.lr=0.02,0.1", f"seed={seeds}", *plan)
        done = call_litlab(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        assert planned_seeds(study) == planned
        results = {path: path.stat().st_mtime_ns for path in study.glob("*/result.json")}
        assert completed.items() <= results.items(), "no job was started again"
        completed = results
        code, table, errors = call_here(tmp_path, "compare", "outputs/s", "--baseline", "lr=0.1")
        assert (code, errors) == (0, "")
        assert " ".join(table.split()).partition("Test: ")[2].partition(").")[0] == expected
    looks = (study / "looks.jsonl").read_text().splitlines()
    assert [(look["lowest"], look["highest"]) for look in map(json.loads, looks)] == [(2, 2), (3, 3), (4, 4)]


def test_fewer_planned_seeds_than_values_are_refused(tmp_path: Path, call_here: Call) -> None:
    code, _, errors = call_here(tmp_path, "train", "-m", *SHORT, "study.name=few", "seed=0,1,2", "study.seeds=2")
    assert (code, errors.splitlines()) == (
        1,
        [
            "litlab: study.seeds=2: fewer than the 3 values of `seed`; expected the number of seeds that are planned "
            "for each setting, or null for those of this command"
        ],
    )
    assert not (tmp_path / "outputs").exists()


def test_a_dry_run_of_a_new_study_writes_nothing(tmp_path: Path, call_here: Call) -> None:
    sweep = ("name=job_${hydra:job.num}", "seed=0,1,1", "optimizer.lr=1,2,3", "study.name=mine")
    paired = "hydra.sweeper.paired=[seed,optimizer.lr]"
    code, table, errors = call_here(tmp_path, "train", *SHORT, *sweep, paired, "-m", "--dry-run")
    assert (code, errors) == (0, "")
    assert table.splitlines() == [
        "0000_lr-1_seed-0  new          seed=0 optimizer.lr=1",
        "0001_lr-2_seed-1  new          seed=1 optimizer.lr=2",
        "0002_lr-3_seed-1  new          seed=1 optimizer.lr=3",
        "",
        "3 jobs (3 new) in outputs/mine; nothing was started or written",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integrations
def test_a_key_that_only_the_configs_on_an_axis_have_is_set_in_the_jobs(tmp_path: Path, call_here: Call) -> None:
    """`width` is not a key of model=cnn, with which Hydra composes the multirun itself."""
    tiny = [override for override in SHORT if not override.startswith("model")]
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "narrow.yaml").write_text("_target_: litlab.models.resnet.ResNet18\nwidth: 4\n")
    arguments = ("train", "-m", *tiny, "model.width=8", "study.name=mine", "--dry-run")
    code, table, errors = call_here(tmp_path, *arguments, "model=resnet18,narrow", "seed=0,1")
    assert (code, errors) == (0, "litlab: 4 points are 2 different experiments, each a job\n"), "with the same width"
    assert table.splitlines()[:2] == [
        "0000_model-resnet18_seed-0  new          model=resnet18 seed=0",
        "0001_model-resnet18_seed-1  new          model=resnet18 seed=1",
    ]
    code, _, errors = call_here(tmp_path, *arguments, "model=resnet18,whitened")
    assert (code, errors) == (
        1, "litlab: model.width: unknown key; did you mean model.widths? (in 1 of 2 jobs: model=whitened)\n",
    )  # fmt: skip
    code, _, errors = call_here(tmp_path, *arguments, "seed=0,1")
    assert (code, errors) == (1, "litlab: model.width: unknown key; did you mean model.widths?\n")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.integrations
def test_a_dry_run_of_a_study_lists_completed_jobs(project: Path, call_here: Call) -> None:
    (study,) = (project / "outputs" / "shapes_cnn").iterdir()
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    overrides = (*SHORT, *COUNTED, "seed=0,1,2,2", f"hydra.sweep.dir={study.relative_to(project)}")
    code, table, errors = call_here(project, "train", "-m", *overrides, "--dry-run")
    assert (code, errors) == (0, "litlab: 4 points are 3 different experiments, each a job\n")
    assert [line.split()[:2] for line in table.splitlines()[:3]] == [
        ["0000_seed-0", "completed"], ["0001_seed-1", "completed"], ["0002_seed-2", "new"],
    ]  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_dry_run_of_a_single_run(tmp_path: Path, call_here: Call) -> None:
    code, text, errors = call_here(tmp_path, "train", "--dry-run", *SHORT)
    assert (code, errors) == (0, "")
    assert text.startswith(f"a single run in {tmp_path}/outputs/shapes_cnn/")
    refused = call_here(tmp_path, "train", "--dry-run", *SHORT, "optimizer.lr=-1")
    assert refused == (1, "", "litlab: optimizer.lr=-1: expected greater than 0\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integrations
def test_a_job_of_hydras_own_launcher_that_fails_makes_the_command_fail(tmp_path: Path) -> None:
    """Under Hydra's own sweeper: a bad value, a split that only a worker finds impossible, another bad value."""
    hydras = ("hydra/launcher=basic", "hydra/sweeper=basic", "study.name=mine")
    sweep = ("data.num_train=30", "optimizer.lr=-1,0.05,-2")
    done = call_litlab(tmp_path, "train", "-m", *SHORT, *hydras, *sweep)
    assert done.returncode == 1
    assert "optimizer.lr=-1: expected greater than 0" in done.stderr
    study = tmp_path / "outputs" / "mine"
    (job,) = jobs_in(study)
    assert job.name == "0001_lr-0.05", "the others leave nothing"
    assert (study / "multirun.yaml").exists()
    result = read_result(RunDirectory(job))
    assert result["status"] == "refused", "it went on after the first had failed"
    assert "val_size" in result["error"]
    assert from_yaml(RunDirectory(job).config.read_text())["study"]["swept"] == ["optimizer.lr"]


def test_hydras_own_launcher_can_be_given_a_grid(tmp_path: Path, call_here: Call) -> None:
    arguments = ("train", "-m", *SHORT, "hydra/launcher=basic", "study.name=mine", "optimizer.lr=-1,-2")
    code, _, errors = call_here(tmp_path, *arguments)
    assert code == 1
    assert "optimizer.lr=-1: expected greater than 0" in errors
    assert not list(tmp_path.rglob("config.yaml")), "neither left anything behind"


@pytest.mark.integrations
def test_hydras_own_sweeper_can_use_the_pool(tmp_path: Path) -> None:
    """In batches, each of which continues the study."""
    sweeper = ("hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1", "study.name=mine")
    done = call_litlab(tmp_path, "train", "-m", *SHORT, *sweeper, "seed=0,1")
    assert done.returncode == 0, done.stderr
    study = tmp_path / "outputs" / "mine"
    jobs = jobs_in(study)
    assert [path.name for path in jobs] == ["0000_seed-0", "0001_seed-1"]
    assert [read_result(RunDirectory(path))["status"] for path in jobs] == ["completed"] * 2


def test_a_process_that_only_imports_the_job_can_resolve_its_config() -> None:
    """Launchers that call the job in another process need it."""
    code = "import litlab.cli.train, omegaconf; print(omegaconf.OmegaConf.create({'x': '${litlab.id:}'}).x)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.fullmatch(r"[0-9a-f]{6}\n", done.stdout), done.stderr


@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_a_directory_that_cannot_be_written(mode: str, tmp_path: Path, call_here: Call) -> None:
    (tmp_path / "outputs").write_text("a file")
    code, _, errors = call_here(tmp_path, "train", f"hydra.mode={mode}", "name=mine", "trainer=cpu")
    assert (code, errors[:21]) == (1, "litlab: outputs/mine/")
    assert "Not a directory" in errors
    assert "hydra.run.dir=" in errors


def test_a_study_in_use_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    study = tmp_path / "outputs" / "mine"
    study.mkdir(parents=True)
    with directory_lock(study):
        done = call_litlab(tmp_path, "train", "-m", *SHORT, "seed=0,1", "study.name=mine")
    assert done.returncode == 75
    assert done.stderr.startswith(f"litlab: {study} is in use by process"), done.stderr


@pytest.mark.skipif(num_cores() < 2, reason="needs cores for two jobs")
def test_a_command_knows_of_the_cores_of_another_one(tmp_path: Path) -> None:
    """The other command has all cores: one job starts nevertheless, the next one waits until it has ended."""
    others = DeviceLeases()
    cores = [f"core-{number}" for number in os.sched_getaffinity(0)]
    assert others.take(cores, len(cores)) == (cores, [])
    done = call_litlab(tmp_path, "train", "-m", *SHORT, "optimizer.lr=0.05,0.1", "study.name=mine")
    others.release(cores)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    owner = f"process {os.getpid()} on {os.uname().nodename}"
    assert lines[1:3] == [
        "0000_lr-0.05: started",
        f"0001_lr-0.1: waits: {len(cores)} of {len(cores)} CPU cores are in use by {owner}",
    ]
    (ended,) = (number for number, line in enumerate(lines) if line.startswith("0000_lr-0.05: completed"))
    assert f"1 queued ({len(cores)} of {len(cores)} CPU cores are in use by {owner})" in lines[ended]
    assert lines.index("0001_lr-0.1: started") > ended
    study = tmp_path / "outputs" / "mine"
    assert not (study / ".waiting.json").exists()
    assert planned_seeds(study) == [1], "without an axis of seeds"
