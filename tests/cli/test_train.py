"""`litlab train`: its help, and its errors, which name the key, the expected value and the nearest match."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.runs import TINY, Command, call_litlab

from litlab.cli.train import help_text
from litlab.process import child_process
from litlab.process.controller import EarlyWorker
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import signature_problem
from litlab.runs.state import read_state

Call = Callable[..., tuple[int, str, str]]
WRONG = {
    "unknown key": (["data.batchsize=3"], "data.batchsize: unknown key; did you mean data.batch_size?"),
    "unknown key, added": (["+data.batchsize=3"], "data.batchsize: unknown key; did you mean data.batch_size?"),
    "unknown key of the Trainer, added": (["+trainer.max_epoch=3"], "did you mean trainer.max_epochs?"),
    "unknown group": (["modle=cnn"], "modle: unknown key; did you mean model?"),
    "unknown config": (["model=cn"], "model=cn: no such config; did you mean cnn; known: cnn, resnet18, timm, "),
    "unknown experiment": (["experiment=foo"], "experiment=foo: no such config; known: accurate_cpu, fast_cpu"),
    "a list of transforms": (
        ["data.transforms=[]"],
        "data.transforms: expected lists for training and evaluation: data.transforms.train=[...] and data.trans",
    ),
    "a mapping of transforms": (
        ["data.transforms.train={}"], "data.transforms.train: expected a list, as in 'data.transforms.train=[...]'",
    ),
    "a node that is merged into the default": (
        ["schedule={_target_: torch.optim.lr_scheduler.StepLR, step_size: 1}"],
        "schedule.step_size: schedule={...} is merged into the config of schedule, which has no such key; replace it",
    ),
    "a class as a config": (
        ["model=nets.Net"], ". A class is named by ~model '+model={_target_: nets.Net}', or in a conf/model/NAME.yaml",
    ),
    "wrong type": (["seed=a"], "seed=a: expected a valid integer"),
    "wrong type in a list": (["model.widths=[3,a]"], "model.widths.1=a: expected a valid integer"),
    "learning rate": (["optimizer.lr=-1"], "optimizer.lr=-1: expected greater than 0"),
    "batch of nothing": (["data.batch_size=0"], "data.batch_size=0: expected greater than or equal to 1"),
    "devices": (["trainer.devices=0"], "expected greater than or equal to 1, or 'auto' or -1, or a valid list"),
    "a share of all": (["data.val_size=1.0"], "data.val_size=1.0: expected a valid integer, or less than 1"),
    "missing": (["data=image_folder"], "data.root: a value is missing; set data.root=..."),
    "selecting on test": (["objective.metric=test/accuracy"], "nothing is ever selected on the test split"),
    "an objective that is not measured": (["objective.metric=val/acuracy"], "did you mean val/accuracy; known"),
    "devices that do not divide the batch": (
        ["data.batch_size=129", "trainer.devices=2"],
        "it counts the images of all devices together, so 2 devices must divide it; use 128 or 130",
    ),
    "grammar": (["optimizer.lr=.1=3"], "optimizer.lr=.1=3: cannot be read as an override"),
    "no such fold": (["data=shapes", "data.folds=3", "data.fold=3"], "data.fold=3: there are 3 folds"),
    "a size beside folds": (
        ["data=shapes", "data.folds=3", "data.fold=0", "data.val_size=9"],
        "data.val_size=9: is not used with data.folds",
    ),
    "no data set of torchvision": (
        ["data=torchvision", "data.name=COCO"], "data.name=COCO: expected a classification data set of torchvision",
    ),
    "no such class of ours": (["model._target_=litlab.models.cnn.CNNN"], "did you mean litlab.models.cnn.CNN"),
    "no data for a task without loaders": (["data=null"], "data=null: is for a task with loaders of its own"),
    "a group set to null": (["experiment=null"], "to leave the group out, write ~experiment"),
    "a secret written out": (["+logger.tensorboard.api_key=abc"], "logger.tensorboard.api_key"),
    "interpolation": (["seed=${nothing}"], "cannot be resolved"),
    "a resolver that is not there": (["seed=${mul:3,4}"], "a function of this name in conf/resolvers.py defines it"),
    "several values": (["seed=0,1"], "seed=0,1: several values; add -m to run a job for each of them, or write a list"),
    "a range": (["seed=range(3)"], "seed=range(3): several values; add -m to run a job for each of them\n"),
    "an argument that the YAML has not": (
        ["optimizer.maximize=true"],
        "optimizer.maximize: is not in the YAML of optimizer; add it with a plus: +optimizer.maximize=...\n",
    ),
    "no plus can add it": (["model.foo=3"], "model.foo: unknown key; known here: model.hidden, model.image_shape, "),
    "an argument of the Trainer that litlab decides": (
        ["trainer.enable_progress_bar=false"],
        "trainer.enable_progress_bar: can't be set: litlab has a progress bar of its own",
    ),
    "the same, added": (["+trainer.callbacks=[]"], "trainer.callbacks: can't be set: callbacks are in the group"),
    "an argument of a foreign class": (
        ["schedule._target_=torch.optim.lr_scheduler.StepLR", "schedule.warm=3"],
        "did you mean schedule.warmup?\n        If torch.optim.lr_scheduler.StepLR has an argument warm, add it",
    ),
}  # fmt: skip


@pytest.fixture
def no_early_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a worker is started early."""
    monkeypatch.setattr("litlab.process.controller.num_cores", lambda: 2)
    monkeypatch.setattr(EarlyWorker, "_start", lambda worker: pytest.fail("a worker was started"))


@pytest.mark.usefixtures("no_early_worker")
@pytest.mark.parametrize("case", WRONG)
def test_errors_in_keys_of_litlab(case: str, tmp_path: Path, call_here: Call) -> None:
    overrides, expected = WRONG[case]
    code, output, errors = call_here(tmp_path, "train", *overrides)
    assert code == 1
    assert expected in errors
    assert errors.startswith("litlab: ")
    assert "Traceback" not in errors + output
    assert list(tmp_path.iterdir()) == [], "a run that never started leaves no files"


@pytest.mark.usefixtures("no_early_worker")
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--cfg", "job"], ["--dry-run"], ["--freeze-only"]],
    ids=" ".join,
)
def test_no_worker_is_started_without_a_run(arguments: list[str], tmp_path: Path, call_here: Call) -> None:
    assert call_here(tmp_path, "train", "data=shapes", *arguments)[0] == 0


def test_a_class_that_is_refused_leaves_no_early_worker(
    tmp_path: Path, call_here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked while the worker imports its libraries, which prints nothing."""
    monkeypatch.setattr("litlab.process.controller.num_cores", lambda: 2)
    pids, start = [], EarlyWorker._start

    def start_and_record(worker: EarlyWorker) -> None:
        start(worker)
        assert worker._process is not None
        pids.append(worker._process.pid)

    monkeypatch.setattr(EarlyWorker, "_start", start_and_record)
    foreign = ["~model.widths", "~model.hidden", "model._target_=no_such_package.Net"]
    code, output, errors = call_here(tmp_path, "train", "data=shapes", *foreign)
    assert (code, output) == (1, "")
    assert errors.startswith("litlab: model._target_: no_such_package.Net: there is no module")
    assert len(errors.splitlines()) == 1
    assert [psutil.pid_exists(pid) for pid in pids] == [False]
    assert list(tmp_path.iterdir()) == []


def test_foreign_targets_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("class Net:\n    def __init__(self, *, num_classes, width): ...\n")
    model = ["model._target_=nets.Net", "+model.widht=3", "~model.widths", "~model.hidden"]
    done = call_litlab(tmp_path, "train", *model)
    assert done.returncode == 1
    assert "nets.Net takes no argument 'widht'; did you mean width" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"nets.py"}


def test_an_existing_run_is_never_overwritten(tiny_run: RunDirectory, litlab: Command) -> None:
    before = tiny_run.result.read_bytes()
    done = litlab("train", *TINY, f"hydra.run.dir={tiny_run.path}")
    assert done.returncode == 1
    assert "is the directory of an existing run, which is never overwritten" in done.stderr
    assert tiny_run.result.read_bytes() == before


def test_missing_data_leave_no_files(tmp_path: Path) -> None:
    done = call_litlab(tmp_path, "train", "data=image_folder", "data.root=nowhere", "trainer=cpu")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_machines_are_refused_by_a_command_of_one(tmp_path: Path, call_here: Call) -> None:
    for flags in ((), ("--dry-run",)):
        code, output, errors = call_here(tmp_path, "train", *TINY, "trainer.num_nodes=2", *flags)
        assert (code, output) == (1, "")
        assert errors.startswith("litlab: trainer.num_nodes=2: this command starts processes on this machine alone")
        assert "hydra/launcher=slurm" in errors
        assert "--freeze-only" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_only_frozen(tmp_path: Path, call_here: Call) -> None:
    """It is complete, signed and queued; no worker was there."""
    two = (*TINY, "trainer.num_nodes=2", "hydra.run.dir=two")
    code, output, errors = call_here(tmp_path, "train", *two, "--freeze-only", "--dry-run")
    assert (code, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []
    code, output, errors = call_here(tmp_path, "train", "--freeze-only", *two)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "run          two"
    assert [line.split()[0] for line in lines[1:3]] == ["srun", "torchrun"]
    assert all(line.endswith(f"litlab.training.worker {tmp_path}/two") for line in lines[1:3])
    run = RunDirectory(tmp_path / "two")
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".hydra", ".signature", "config.yaml", "provenance.json",
    ]  # fmt: skip
    assert signature_problem(run, run.config.read_bytes()) is None
    assert run.read_config()["trainer"]["num_nodes"] == 2
    assert run.read_json(run.provenance)["project"] == str(tmp_path)
    assert read_state(run).status == "queued"
    code, _, errors = call_here(tmp_path, "train", *two, "--freeze-only")
    assert code == 1
    assert "existing run" in errors


def test_a_run_of_one_machine_that_is_only_frozen_is_started_by_resume(tmp_path: Path, call_here: Call) -> None:
    code, output, _ = call_here(tmp_path, "train", "--freeze-only", *TINY, "hydra.run.dir=one")
    assert (code, output) == (0, "run          one\nstart        litlab resume one\n")
    done = call_litlab(tmp_path, "resume", "one")
    assert done.returncode == 0, done.stderr
    assert read_state(RunDirectory(tmp_path / "one")).status == "completed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["seed=0,1", "-m"], "--freeze-only: expected a single run; for a multirun on a cluster"),
        (["study=lr_by_seed"], "--freeze-only: expected a single run"),
        (["hydra/launcher=slurm"], "--freeze-only: hydra/launcher=slurm starts the run itself"),
        (
            ["trainer.accelerator=gpu", "trainer.num_nodes=2", "trainer.devices=auto"],
            "trainer.devices=auto: srun and torchrun need",
        ),
        (["optimizer.lr=-1"], "optimizer.lr=-1: expected greater than 0"),
    ],
)
def test_what_cannot_be_only_frozen(arguments: list[str], expected: str, tmp_path: Path, call_here: Call) -> None:
    code, output, errors = call_here(tmp_path, "train", *TINY, *arguments, "--freeze-only")
    assert (code, output) == (1, "")
    assert errors.startswith(f"litlab: {expected}"), errors
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_several_machines_is_resumed_by_srun_or_torchrun(tmp_path: Path, call_here: Call) -> None:
    call_here(tmp_path, "train", "--freeze-only", *TINY, "hydra.run.dir=run")
    code, output, errors = call_here(tmp_path, "resume", "run", "trainer.num_nodes=2", "trainer.devices=2")
    assert (code, "trainer.num_nodes: 1 -> 2" in output) == (1, True), output + errors
    first = "trainer.num_nodes=2: add hydra/launcher=slurm, or start the run on all machines by one of"
    assert errors.startswith(f"litlab: {first}\n")
    assert "srun --nodes=2 --ntasks-per-node=2" in errors
    assert "--nnodes=2 --nproc-per-node=2" in errors
    assert not (tmp_path / "run" / "result.json").exists()


def test_help_names_what_can_be_chosen() -> None:
    lines = help_text(["--help", "model=resnet18"]).splitlines()
    groups = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
    assert groups["data"] == "cifar10, huggingface, image_folder, shapes, torchvision"
    assert groups["model"].split(", ") == ["cnn", "resnet18", "timm", "torchvision", "whitened"]
    assert "sprint" in groups["experiment"]
    assert "data/base" not in groups
    assert "  _target_: litlab.models.resnet.ResNet18" in lines


def test_a_gpu_that_is_not_there_is_refused_and_leaves_no_files(tmp_path: Path) -> None:
    """Before the run is made; where there is a driver, by its worker, since only torch knows which GPUs are hidden."""
    done = call_litlab(tmp_path, "train", *TINY, "trainer.accelerator=gpu", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    has_driver = any(map(os.path.exists, child_process._GPU_FILES))
    expected = (
        "No supported gpu backend found" if has_driver else "this machine has no GPU that CUDA can use; train with"
    )
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()
