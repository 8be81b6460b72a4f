"""How much is measured, and on which images."""

from dataclasses import dataclass

from litlab.config.freeze import cores

SYNTHETIC = "synthetic images (data=shapes)"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    data: overrides that choose the images.
    images: the same in words.
    num_rounds: counted rounds of each comparison, after one of warm-up.
    num_startups: counted starts of `litlab train`, after one of warm-up.
    batch_sizes: of the data path and of training.
    threads: numbers of threads of training; the data path takes the largest.
    num_workers: of the DataLoader that the data path is held against.
    num_steps: of an epoch in which a step's overhead is measured.
    """

    data: tuple[str, ...]
    images: str
    num_rounds: int
    num_startups: int
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    num_workers: int
    num_steps: int


def full(root: str | None) -> Settings:
    """What docs/benchmarks.md reports: on the images of a folder or archive, or on synthetic ones."""
    synthetic = ("data=shapes", "data.num_train=50000", "data.num_test=1000", "data.val_size=5000")
    return Settings(
        data=("data=image_folder", f"data.root='{root}'") if root else synthetic,
        images=f"images of {root}" if root else SYNTHETIC,
        num_rounds=5,
        num_startups=5,
        batch_sizes=(128, 512),
        threads=tuple(sorted({1, min(2, cores())})),
        num_workers=2,
        num_steps=1000,
    )


def quick() -> Settings:
    """Whether everything runs: the numbers mean nothing."""
    return Settings(
        data=("data=shapes", "data.num_train=200", "data.num_test=40", "data.val_size=40"),
        images=f"{SYNTHETIC}, QUICK: the numbers mean nothing",
        num_rounds=2,
        num_startups=1,
        batch_sizes=(16,),
        threads=(1,),
        num_workers=0,
        num_steps=10,
    )
