"""Costs by number of images, batch size and number of ranks, on synthetic images."""

import json
from collections.abc import Callable
from functools import partial

from benchmarks import jpegs
from benchmarks.data_path import Epochs, exhaust, prepared, threads
from benchmarks.harness import Row, interleaved, rates, temporary_folder
from benchmarks.loading import Cost
from benchmarks.runs import Train, in_worker, program
from benchmarks.settings import Settings
from benchmarks.training import ON_CPU, epochs_of, throughput_row
from litlab.runs.result import read_result


def rows(settings: Settings) -> list[Row]:
    return [
        *image_rows(settings),
        *decoded_rows(settings),
        *path_rows(settings),
        *batch_rows(settings),
        *rank_rows(settings),
    ]


def load(*overrides: str) -> Cost:
    """Measure loading in a new process."""
    cost: Cost = json.loads(program("loading", *overrides).splitlines()[-1])  # after messages about decoding
    return cost


def image_rows(settings: Settings, load: Callable[..., Cost] = load) -> list[Row]:
    """Measure loading for each number of images, in processes of their own."""
    measured = []
    for num_images in settings.image_counts:
        costs = [load(*_shapes(num_images)) for _ in range(settings.num_sizes)]
        name = f"{num_images:,} images"
        measured += [
            Row(f"{name}: data path", "images/s", tuple(cost["images_per_second"] for cost in costs)),
            *_ready_rows(name, costs),
        ]
    return measured


def decoded_rows(settings: Settings, load: Callable[..., Cost] = load) -> list[Row]:
    """Measure loading of image files, first decoded and then from the cache, in processes of their own."""
    first, again = [], []
    for _ in range(settings.num_sizes):
        with temporary_folder() as folder:
            root = settings.root or jpegs.in_folder(settings, folder / "jpegs")
            files = ("data=image_folder", f"data.root='{root}'", f"data.cache='{folder}/cache'")
            first.append(load(*files, "data.val_size=0"))
            again.append(load(*files, "data.val_size=0"))
    return [*_ready_rows("files, decoded", first), *_ready_rows("files, from the cache", again)]


def _ready_rows(name: str, costs: list[Cost]) -> list[Row]:
    memory, pixels = (tuple(values) for values in zip(*((c["mebibytes"], c["pixels"]) for c in costs), strict=True))
    return [
        Row(f"{name}: until they are there", "s", tuple(cost["seconds"] for cost in costs)),
        Row(f"{name}: peak memory", "MiB", memory, "their pixels as uint8", pixels),
    ]


def path_rows(settings: Settings) -> list[Row]:
    """Measure the data path for each batch size."""
    measured = []
    with threads(max(settings.threads)):
        for batch_size in settings.sized_batches:
            data = prepared(*_shapes(settings.num_sized), f"data.batch_size={batch_size}")
            ours = {"litlab": partial(exhaust, Epochs(data))}
            seconds = interleaved(ours, num_warmup=1, num_rounds=settings.num_rounds)["litlab"]
            measured.append(Row(f"data path, batch {batch_size}", "images/s", rates(len(data.train_indices), seconds)))
    return measured


def batch_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Measure training of the default network for each batch size."""
    common = (*ON_CPU, *_shapes(settings.num_sized), f"threads={max(settings.threads)}")
    return [
        throughput_row(
            f"training, batch {batch_size}",
            epochs_of(settings, train, *common, f"data.batch_size={batch_size}"),
        )
        for batch_size in settings.sized_batches
    ]


def rank_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Measure training on several processes of one thread each, against the first number of processes."""
    speeds: dict[int, list[float]] = {ranks: [] for ranks in settings.ranks}
    for _ in range(settings.num_sizes):
        for ranks, values in speeds.items():
            values.append(_speed(train, settings, ranks))
    one, *others = settings.ranks
    alone = tuple(speeds[one])
    return [
        Row(f"training, {one} rank", "images/s", alone),
        *(Row(f"training, {more} ranks", "images/s", tuple(speeds[more]), f"{one} rank", alone) for more in others),
    ]


def _speed(train: Train, settings: Settings, ranks: int) -> float:
    """Return the images per second of two epochs over all ranks."""
    spread = ("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={ranks}") if ranks > 1 else ("trainer=cpu",)
    with temporary_folder() as folder:
        overrides = (*_shapes(settings.num_sized), *spread, "threads=1", "trainer.max_epochs=2")
        run = train(folder / "run", *overrides)
        return float(read_result(run)["images_per_second"])


def _shapes(num_images: int) -> tuple[str, ...]:
    """Return the overrides for a number of synthetic training images."""
    return ("data=shapes", f"data.num_train={num_images}", "data.num_test=40", "data.val_size=40")
