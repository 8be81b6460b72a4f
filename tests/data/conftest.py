"""Small data sets of the real layouts, made by the tests themselves."""

import hashlib
import http.server
import io
import os
import resource
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litlab.data.cifar10 import CIFAR10, Release
from litlab.data.download import Checksum
from litlab.data.image_folder import ImageFolder
from litlab.data.module import ImageDataModule
from litlab.data.shapes import Shapes

COMMON: dict[str, Any] = {
    "batch_size": 16,
    "val_size": 20,
    "val_seed": 0,
    "seed": 0,
    "crop_padding": 4,
    "flip": True,
    "cutout": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "color_jitter": None,
    "rand_augment": None,
    "progressive_sizes": None,
    "mean": None,
    "std": None,
}
BATCH_NAMES = ("data_batch_1", "data_batch_2", "test_batch")
NUM_PER_FILE = 50


@dataclass(frozen=True)
class SmallCifar:
    """A release of two training batches and a test batch, in all three forms, and what it holds."""

    release: Release
    binary: bytes
    python: bytes
    pickles: dict[str, bytes]
    images: np.ndarray  # batch image c h w
    labels: np.ndarray


def tar_gz(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            archive.addfile(entry, io.BytesIO(member))
    return content.getvalue()


def checksum(name: str, content: bytes) -> Checksum:
    return Checksum(name, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture(scope="session")
def small_cifar() -> SmallCifar:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, NUM_PER_FILE, 3, 32, 32), dtype=np.uint8)
    labels = np.stack([random.permutation(np.arange(NUM_PER_FILE) % 10) for _ in range(3)])
    binaries, pickles = {"cifar-10-batches-bin/readme.html": b"not a batch"}, {}
    for name, pixels, classes in zip(BATCH_NAMES, images, labels, strict=True):
        records = np.concatenate([classes[:, None].astype(np.uint8), pixels.reshape(NUM_PER_FILE, -1)], axis=1)
        binaries[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
        pickles[name] = python2_batch(pixels.reshape(NUM_PER_FILE, -1), classes.tolist())
    binary = tar_gz(binaries)
    python = tar_gz({f"cifar-10-batches-py/{name}": content for name, content in pickles.items()})
    release = Release(
        binary=checksum("cifar-10-binary.tar.gz", binary),
        python=checksum("cifar-10-python.tar.gz", python),
        python_md5=tuple((name, hashlib.md5(content).hexdigest()) for name, content in pickles.items()),
        num_per_file=NUM_PER_FILE,
    )
    return SmallCifar(release, binary, python, pickles, images, labels)


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A pickle as Python 2 and NumPy 1 wrote the official ones: protocol 2, byte strings, numpy.core."""
    rows, columns = pixels.shape

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value  # BINSTRING, which Python 3 never writes

    def integer(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + integer(-1) + integer(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01(" + integer(rows) + integer(columns) + b"t" + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    items = b"".join(b"K" + bytes([label]) for label in labels)
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](" + items + b"e" + b"u."


@pytest.fixture
def cifar_module(small_cifar: SmallCifar, tmp_path: Path) -> Callable[..., CIFAR10]:
    """Makes a CIFAR10 of the small release; its root is tmp_path/root."""

    class SmallCIFAR10(CIFAR10):
        release = small_cifar.release

    def make(**changes: Any) -> CIFAR10:
        own = {"root": str(tmp_path / "root"), "url": "http://127.0.0.1:9/nothing", "cache": str(tmp_path / "cache")}
        return SmallCIFAR10(**{**COMMON, **own, **changes})

    return make


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` (None: nothing there) and counts requests."""

    content: bytes | None = None
    declared: int | None = None  # a length that differs from the content's
    num_requests = 0
    finish: threading.Event | None = None  # before it is set, no answer ends

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-binary.tar.gz"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.num_requests += 1
        content = self.server.content
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.declared or len(content)))
        self.end_headers()
        self.wfile.write(content)
        if self.server.finish is not None:
            self.server.finish.wait(30)

    def log_message(self, *arguments: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def write_images(root: Path, splits: dict[str, int], classes: tuple[str, ...] = ("cat", "dog", "emu")) -> None:
    """So many PNG images per class and split, of random sizes and pixels."""
    random = np.random.default_rng(1)
    for split, num_images in splits.items():
        for class_name in classes:
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for number in range(num_images):
                height, width = random.integers(10, 40, 2)
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03}.png")


@pytest.fixture
def folder_module(tmp_path: Path) -> Callable[..., ImageFolder]:
    """Makes an ImageFolder whose root is tmp_path/images."""

    def make(**changes: Any) -> ImageFolder:
        own: dict[str, Any] = {"root": str(tmp_path / "images"), "image_size": 24, "cache": str(tmp_path / "cache")}
        own |= {"storage": "memory", "num_workers": 0}
        return ImageFolder(**{**COMMON, **own, **changes})

    return make


@pytest.fixture
def shapes_module() -> Callable[..., Shapes]:
    def make(**changes: Any) -> Shapes:
        return Shapes(**{**COMMON, "num_train": 110, "num_test": 37, "data_seed": 0, **changes})

    return make


@pytest.fixture(params=["shapes", "cifar10", "image_folder"])
def make_module(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ImageDataModule]:
    """Makes each kind of data module in turn, prepared and set up, with keys of the caller's."""
    if request.param == "shapes":
        make = request.getfixturevalue("shapes_module")
    elif request.param == "cifar10":
        small = request.getfixturevalue("small_cifar")
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / small.release.binary.name).write_bytes(small.binary)
        make = request.getfixturevalue("cifar_module")
    else:
        write_images(tmp_path / "images", {"train": 35, "test": 13})
        make = request.getfixturevalue("folder_module")

    def made(**changes: Any) -> ImageDataModule:
        module: ImageDataModule = make(**changes)
        module.prepare_data()
        module.setup("fit")
        return module

    return made


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """An allocation that a bomb would need fails at once: as MemoryError, whose text is not the one expected."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
