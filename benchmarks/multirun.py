"""A multirun of the tutorial CNN against the usual set-up and the ideal; the start of a job; freezing many jobs."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from benchmarks import in_memory
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.runs import compose_config, new_run
from benchmarks.settings import Settings
from benchmarks.startup import ONE_STEP, POLL, run_past_first_step
from litlab.config.compose import register_resolvers
from litlab.config.job_configs import Point, compose_jobs
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.sweep.backends.base import Backend, Job, JobExit
from litlab.sweep.backends.local import LocalPool, PoolSettings

EPOCHS = 2
NUM_VAL_BATCHES = 40
BATCH_SIZE = 128
RATES = (0.02, 0.05, 0.1, 0.2)
_CHECKOUT = Path(__file__).parents[1]


def rows(settings: Settings) -> list[Row]:
    return [*whole_rows(settings), start_row(settings), freezing_row(settings)]


def whole_rows(settings: Settings) -> list[Row]:
    """Measure whole commands that train, validate each epoch and test every job."""
    points = [(lr, seed) for lr in RATES for seed in range(settings.num_seeds)]
    with temporary_folder() as folder:
        arrays, runs = folder / "arrays", folder / "runs"
        arrays.mkdir()
        in_memory.save(prepared(*settings.multirun_data), arrays, num_val=NUM_VAL_BATCHES * BATCH_SIZE)
        contenders: dict[str, Callable[[], object]] = {
            "litlab": partial(litlab, runs, settings.multirun_data, settings.num_seeds),
            "usual": partial(usual, runs, arrays, settings.num_seeds),
            "ideal": partial(ideal, arrays, points),
        }
        seconds = interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    name = f"multirun, {len(points)} jobs"
    return [
        Row(name, "s", seconds["litlab"], "@hydra.main, Lightning, BasicLauncher", seconds["usual"]),
        Row(name, "s", seconds["litlab"], "loops by hand, one a core", seconds["ideal"]),
    ]


def litlab(folder: Path, data: Sequence[str], num_seeds: int) -> None:
    """Run `litlab train -m` with every default on."""
    limits = (f"trainer.max_epochs={EPOCHS}", f"trainer.limit_val_batches={NUM_VAL_BATCHES}")
    train_jobs(new_directory(folder), len(RATES) * num_seeds, *data, "trainer=cpu", *limits, *axes(num_seeds))


def train_jobs(study: Path, num_jobs: int, *overrides: str) -> None:
    """Run `litlab train -m`, and check that all jobs are completed."""
    command = [sys.executable, "-m", "litlab", "train", "-m", *overrides, f"hydra.sweep.dir={study}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=study.parent)
    statuses = [read_result(RunDirectory(file.parent))["status"] for file in study.glob("*/result.json")]
    assert statuses == ["completed"] * num_jobs, statuses


def usual(folder: Path, arrays: Path, num_seeds: int) -> None:
    """Run the same jobs in one process on two threads, one after the other."""
    command = [sys.executable, "-m", "benchmarks.usual", "-m", f"data={arrays}", f"epochs={EPOCHS}"]
    command += [
        f"hydra.sweep.dir={new_directory(folder)}",
        *(axis.removeprefix("optimizer.") for axis in axes(num_seeds)),
    ]
    subprocess.run(command, check=True, cwd=_CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ideal(arrays: Path, points: Sequence[tuple[float, int]]) -> None:
    """Run the same jobs in two processes of one thread each, divided beforehand."""
    command = [sys.executable, "-m", "benchmarks.ideal", str(arrays), str(EPOCHS)]
    parts = [[f"{lr}:{seed}" for lr, seed in points[start::2]] for start in range(2)]
    processes = [subprocess.Popen([*command, *part], cwd=_CHECKOUT, stdout=subprocess.DEVNULL) for part in parts]
    codes = [process.wait() for process in processes]
    assert codes == [0, 0], codes


def in_process(run: RunDirectory) -> float:
    """Measure seconds from the start of a worker process to the end of its first step."""
    command = [sys.executable, "-P", "-m", "litlab.training.worker", str(run.path)]
    began = time.time()
    return run_past_first_step(command, run) - began


def in_pool(pool: Backend, job: Job) -> float:
    """Measure seconds from handing a job to the pool to the end of its first step."""
    began = time.perf_counter()
    pool.submit(job)
    ended: list[JobExit] = []
    while not job.run.metrics.exists() and not ended:
        ended = pool.poll(POLL)
    seconds = time.perf_counter() - began
    while not ended:
        ended = pool.poll(1)
    assert ended[0].code == 0, ended
    return seconds


def start_row(settings: Settings, in_process: Callable[[RunDirectory], float] = in_process) -> Row:
    """Measure a job's start to the end of its first step: a fork of the pool's server against a new process."""
    config = compose_config(*settings.data, *ONE_STEP, "threads=1")
    pool = LocalPool(PoolSettings(jobs=1, jobs_per_device=1, timeout=None, retries=0))
    seconds: dict[str, list[float]] = {"pool": [], "process": []}
    try:
        assert pool.has_capacity(config)  # waits until its server is ready
        with temporary_folder() as folder:
            for number in range(1 + settings.num_startups):
                job = Job(number, new_run(folder / f"pool_{number}", config), config)
                seconds["pool"].append(in_pool(pool, job))
                seconds["process"].append(in_process(new_run(folder / f"process_{number}", config)))
    finally:
        pool.close()
    warm = {name: tuple(values[1:]) for name, values in seconds.items()}
    return Row("a job's start to its first step", "s", warm["pool"], "a new worker process", warm["process"])


def freezing_row(settings: Settings) -> Row:
    """Measure seconds from override lists to composed, checked and frozen jobs, against Hydra's composing alone."""
    seconds = frozen(settings.data, settings.num_frozen, settings.num_multiruns, hydra=True)
    name = f"freezing {settings.num_frozen} jobs"
    return Row(name, "s", seconds["litlab"], "Hydra composes each once", seconds["hydra"])


def frozen(data: Sequence[str], num_jobs: int, num_rounds: int, *, hydra: bool = False) -> dict[str, tuple[float, ...]]:
    """Measure the seconds of freezing jobs by litlab and, with `hydra`, of composing them by Hydra, round by round."""
    lines = [(f"optimizer.lr={RATES[number % 4]}", f"seed={number}") for number in range(num_jobs)]
    points = [Point.of(line, {"optimizer.lr", "seed"}) for line in lines]
    register_resolvers()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration(ROOT, ["name=benchmark", *data], RunMode.MULTIRUN)
        contenders: dict[str, Callable[[], object]] = {
            "litlab": lambda: compose_jobs(loader, master, points, {}, 0, progress=False),
        }
        if hydra:
            contenders["hydra"] = lambda: [loader.load_sweep_config(master, list(line)) for line in lines]
        return interleaved(contenders, num_warmup=0, num_rounds=num_rounds)


def axes(num_seeds: int) -> list[str]:
    """Return the sweep over learning rates and seeds."""
    return [f"optimizer.lr={','.join(map(str, RATES))}", f"seed={','.join(map(str, range(num_seeds)))}"]


def new_directory(folder: Path) -> Path:
    """Return a new directory name."""
    folder.mkdir(exist_ok=True)
    return folder / f"{time.monotonic_ns()}"
