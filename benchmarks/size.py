"""What things cost as they grow: images, batches, ranks. Synthetic images, so that there can be any number."""

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
    cost: Cost = json.loads(program("loading", *overrides).splitlines()[-1])  # behind what it says of decoding
    return cost


def image_rows(settings: Settings, load: Callable[..., Cost] = load) -> list[Row]:
    """Each number of images in processes of its own; the larger sets are drawn longer."""
    found = []
    for num_images in settings.image_counts:
        costs = [load(*_shapes(num_images)) for _ in range(settings.num_sizes)]
        name = f"{num_images:,} images"
        found += [
            Row(f"{name}: data path", "images/s", tuple(each["images_per_second"] for each in costs)),
            *_ready_rows(name, costs),
        ]
    return found


def decoded_rows(settings: Settings, load: Callable[..., Cost] = load) -> list[Row]:
    """Image files, decoded for the first time, and then from the cache, by processes of their own."""
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
        Row(f"{name}: until they are there", "s", tuple(each["seconds"] for each in costs)),
        Row(f"{name}: peak memory", "MiB", memory, "their pixels as uint8", pixels),
    ]


def path_rows(settings: Settings) -> list[Row]:
    """Measure the data path for each batch size."""
    found = []
    with threads(max(settings.threads)):
        for batch_size in settings.sized_batches:
            data = prepared(*_shapes(settings.num_sized), f"data.batch_size={batch_size}")
            ours = {"litlab": partial(exhaust, Epochs(data))}
            seconds = interleaved(ours, num_warmup=1, num_rounds=settings.num_rounds)["litlab"]
            found.append(Row(f"data path, batch {batch_size}", "images/s", rates(len(data.train_indices), seconds)))
    return found


def batch_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Training of the default network, one row for each batch size."""
    common = (*ON_CPU, *_shapes(settings.num_sized), f"threads={max(settings.threads)}")
    return [
        throughput_row(
            f"training, batch {batch_size}",
            epochs_of(settings, train, *common, f"data.batch_size={batch_size}"),
        )
        for batch_size in settings.sized_batches
    ]


def rank_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Training on so many processes of one thread each, against the first number of them."""
    speeds: dict[int, list[float]] = {ranks: [] for ranks in settings.ranks}
    for _ in range(settings.num_sizes):
        for ranks, found in speeds.items():
            found.append(_speed(train, settings, ranks))
    one, *others = settings.ranks
    alone = tuple(speeds[one])
    return [
        Row(f"training, {one} rank", "images/s", alone),
        *(Row(f"training, {more} ranks", "images/s", tuple(speeds[more]), f"{one} rank", alone) for more in others),
    ]


def _speed(train: Train, settings: Settings, ranks: int) -> float:
    """Images per second over all ranks, of two epochs."""
    spread = ("trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={ranks}") if ranks > 1 else ("trainer=cpu",)
    with temporary_folder() as folder:
        overrides = (*_shapes(settings.num_sized), *spread, "threads=1", "trainer.max_epochs=2")
        run = train(folder / "run", *overrides)
        return float(read_result(run)["images_per_second"])


def _shapes(num_images: int) -> tuple[str, ...]:
    """All but a few of so many to train on."""
    return ("data=shapes", f"data.num_train={num_images}", "data.num_test=40", "data.val_size=40")
