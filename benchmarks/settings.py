"""Amount of measuring and choice of images."""

from dataclasses import dataclass

from litlab.runs.processor import num_cores

SYNTHETIC = "synthetic images (data=shapes)"
_NO_VAL = "data.val_size=0"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Amount of measuring and choice of images.

    Attributes:
        root: A folder or archive of images; None for synthetic ones.
        data: Overrides that choose the images.
        images: The same in words.
        drawn: Overrides that choose synthetic images to be written as JPEG files, where there is no `root`.
        num_rounds: Counted rounds of each comparison, after one of warm-up.
        num_startups: Counted starts of `litlab train`, after one of warm-up.
        batch_sizes: Of the data path and of training.
        threads: Numbers of threads of training; the data path takes the largest.
        num_workers: Of the DataLoader that the data path is held against.
        num_steps: Of an epoch in which a step's overhead is measured.
        num_step_rounds: Of that: a small difference of two times wants many.
        num_large_steps: Of a large network, whose memory is kept or not.
        large_network: Overrides that make it large.
        multirun_data: Overrides that choose the images of a multirun: 20,000 to train on.
        num_multiruns: Counted rounds of whole multiruns.
        num_seeds: Of a multirun, for each of four learning rates.
        num_frozen: Jobs whose freezing is measured.
        num_trials: Of a search.
        num_compared: Runs of a study that is compared.
        recipes: Whose times are held against the classic tutorial's: names of experiments, and rounds of each.
        num_sizes: Rounds of what is measured over sizes, each as often as there are sizes.
        image_counts: Sizes of data sets.
        num_sized: Images that are trained on where the size is another.
        sized_batches: Images per step.
        ranks: Processes that train together.
        job_counts: Jobs of studies that are frozen and looked at.
        pooled_counts: Jobs of studies that are run.
        num_queued: Jobs of the study on SLURM.
        scripts: Folder of the public scripts that the speedrun is compared with; None for none.
        speedrun_data: Overrides that choose the images of the speedrun: all of CIFAR-10, or as many.
        num_speedruns: Counted runs of each contender of the speedrun.
        num_pooled_steps: Steps of each job of a multirun on a GPU.
    """

    root: str | None
    data: tuple[str, ...]
    images: str
    drawn: tuple[str, ...]
    num_rounds: int
    num_startups: int
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    num_workers: int
    num_steps: int
    num_step_rounds: int
    num_large_steps: int
    large_network: tuple[str, ...]
    multirun_data: tuple[str, ...]
    num_multiruns: int
    num_seeds: int
    num_frozen: int
    num_trials: int
    num_compared: int
    recipes: dict[str, int]
    num_sizes: int
    image_counts: tuple[int, ...]
    num_sized: int
    sized_batches: tuple[int, ...]
    ranks: tuple[int, ...]
    job_counts: tuple[int, ...]
    pooled_counts: tuple[int, ...]
    num_queued: int
    scripts: str | None
    speedrun_data: tuple[str, ...]
    num_speedruns: int
    num_pooled_steps: int


def full(root: str | None, scripts: str | None = None) -> Settings:
    """Return the settings of docs/benchmarks.md, on the images of a folder or archive, or on synthetic ones."""
    synthetic = ("data=shapes", "data.num_train=50000", "data.num_test=1000", "data.val_size=5000")
    real = ("data=image_folder", f"data.root='{root}'")
    few = ("data=shapes", "data.num_train=25000", "data.num_test=10000", "data.val_size=5000")
    return Settings(
        root=root,
        data=real if root else synthetic,
        images=f"images of {root}" if root else SYNTHETIC,
        drawn=("data=shapes", "data.num_train=20000", "data.num_test=1000"),
        num_rounds=5,
        num_startups=5,
        batch_sizes=(128, 512),
        threads=tuple(sorted({1, min(2, num_cores())})),
        num_workers=2,
        num_steps=1000,
        num_step_rounds=9,
        num_large_steps=10,
        large_network=("model.widths=[32,96,96]", "data.num_train=8000"),
        multirun_data=(*real, "data.val_size=30000") if root else few,  # of the 50,000 of CIFAR-10
        num_multiruns=3,
        num_seeds=4,
        num_frozen=100,
        num_trials=16,
        num_compared=1000,
        recipes={"sprint": 2, "fast_cpu": 2, "accurate_cpu": 1},
        num_sizes=2,
        image_counts=(10_000, 50_000, 200_000),
        num_sized=10_000,
        sized_batches=(32, 128, 512, 2048, 4096),
        ranks=(1, 2),
        job_counts=(1, 10, 100, 1000),
        pooled_counts=(1, 4, 16),
        num_queued=1000,
        scripts=scripts,
        speedrun_data=(*(real if root else ("data=shapes", "data.num_train=50000", "data.num_test=10000")), _NO_VAL),
        num_speedruns=20,
        num_pooled_steps=2000,
    )


def quick(scripts: str | None = None) -> Settings:
    """Return settings that only show that everything runs."""
    tiny = ("data=shapes", "data.num_train=200", "data.num_test=40", "data.val_size=40")
    return Settings(
        root=None,
        data=tiny,
        images=f"{SYNTHETIC}, QUICK: the numbers mean nothing",
        drawn=("data=shapes", "data.num_train=60", "data.num_test=20"),
        num_rounds=2,
        num_startups=1,
        batch_sizes=(16,),
        threads=(1,),
        num_workers=0,
        num_steps=10,
        num_step_rounds=2,
        num_large_steps=2,
        large_network=("model.widths=[8,8,8]", "data.num_train=400", "data.batch_size=100"),
        multirun_data=("data=shapes", "data.num_train=680", "data.num_test=40", "data.val_size=40"),
        num_multiruns=1,
        num_seeds=1,
        num_frozen=3,
        num_trials=3,
        num_compared=10,
        recipes={"quickstart": 1},
        num_sizes=1,
        image_counts=(400,),
        num_sized=200,
        sized_batches=(16,),
        ranks=(1, 2),
        job_counts=(1, 10),
        pooled_counts=(2,),
        num_queued=3,
        scripts=scripts,
        speedrun_data=("data=shapes", "data.num_train=4000", "data.num_test=2000", _NO_VAL),  # two batches of each
        num_speedruns=2,
        num_pooled_steps=20,
    )
