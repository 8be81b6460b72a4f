"""Small data sets of the real layouts."""

import http.server
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.cifar10 import SmallCifar, make_small_cifar
from support.images import FOLDERS, write_folder
from support.pixels import awkward_images
from torch import Tensor

from litlab.data.cifar10 import CIFAR10
from litlab.data.huggingface import HuggingFace
from litlab.data.image_folder import ImageFolder
from litlab.data.module import ImageDataModule
from litlab.data.shapes import Shapes
from litlab.data.torchvision import Torchvision

COMMON: dict[str, Any] = {
    "batch_size": 16, "val_size": 20, "val_seed": 0, "folds": None, "fold": None, "seed": 0, "crop_padding": 4,
    "flip": True, "cutout": 0, "mixup": 0.0, "cutmix": 0.0, "color_jitter": None, "rand_augment": None,
    "progressive_sizes": None, "hard_fraction": 1.0, "mean": None, "std": None, "low_light": None,
    "transforms": {"train": [], "eval": []}, "num_workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Tensor:
    return awkward_images()


@pytest.fixture(scope="session")
def small_cifar() -> SmallCifar:
    return make_small_cifar()


@pytest.fixture
def cifar_module(small_cifar: SmallCifar, tmp_path: Path) -> Callable[..., CIFAR10]:
    """Return a factory of CIFAR10 modules of the small release; their root is tmp_path/root."""

    class SmallCIFAR10(CIFAR10):
        release = small_cifar.release

    own = {"root": str(tmp_path / "root"), "url": "http://127.0.0.1:9/nothing", "cache": str(tmp_path / "cache")}
    return lambda **changes: SmallCIFAR10(**{**COMMON, **own, **changes})


class Server(http.server.ThreadingHTTPServer):
    """Server of `content` (None for 404), of endless zeros at /endless and of a redirection there at /redirect."""

    content: bytes | None = None
    declared: int | None = None  # a length that differs from the content's
    release: threading.Event | None = None  # before it is set, no response ends

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}/cifar-10-binary.tar.gz"
        self.requests: list[tuple[str, str | None]] = []  # path and authorization
        self.files: dict[str, bytes] = {}  # path -> what is served there instead
        self.held: str | None = None  # path of which only a half comes before `release` is set


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"]))
        content = self.server.files.get(self.path, self.server.content)
        if self.path == "/redirect":
            self.respond(302, Location="/endless")
        elif self.path == "/endless":
            self.respond(200)
            with suppress(OSError):  # the client closes the connection
                for _ in range(10**4):  # 10 GB
                    self.wfile.write(bytes(10**6))
        elif content is None:
            self.send_error(404)
        else:
            self.respond(200, **{"Content-Length": str(self.server.declared or len(content))})
            is_held = self.path == self.server.held
            self.wfile.write(content[: len(content) // 2] if is_held else content)
            if self.server.release is not None and (is_held or self.server.held is None):
                self.server.release.wait(30)

    def do_HEAD(self) -> None:
        """Answer as to a GET, without content."""
        self.respond(200)

    def respond(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def folder_module(tmp_path: Path) -> Callable[..., ImageFolder]:
    """Return a factory of ImageFolder modules whose root is tmp_path/images."""
    own: dict[str, Any] = {"root": str(tmp_path / "images"), "image_size": 24, "cache": str(tmp_path / "cache")}
    own |= {"storage": "memory", "folders": FOLDERS, "classes": None, "encoding": None}
    own |= {"test_size": 0.2, "test_seed": 0, "bit_depth": None, "skip_unreadable": False, "resize": "squash"}
    return lambda **changes: ImageFolder(**{**COMMON, **own, **changes})


@pytest.fixture
def shapes_module() -> Callable[..., Shapes]:
    own = {"num_train": 110, "num_test": 37, "data_seed": 0}
    return lambda **changes: Shapes(**{**COMMON, **own, **changes})


@pytest.fixture
def torchvision_module(tmp_path: Path) -> Callable[..., Torchvision]:
    """Return a factory of Torchvision modules; their root is tmp_path/root."""
    own: dict[str, Any] = {"root": str(tmp_path / "root"), "cache": str(tmp_path / "cache"), "variant": None}
    own |= {"image_size": None, "resize": "squash", "test_size": 0.2, "test_seed": 0}
    return lambda **changes: Torchvision(**{**COMMON, **own, "val_size": 10, **changes})


@pytest.fixture
def huggingface_module(tmp_path: Path) -> Callable[..., HuggingFace]:
    """Return a factory of HuggingFace modules, prepared and set up, of tmp_path/data."""
    own: dict[str, Any] = {"path": str(tmp_path / "data"), "cache": str(tmp_path / "cache"), "name": None}
    own |= {"revision": None, "splits": {"train": ["train"], "val": ["validation"], "test": ["test"]}}
    own |= {"image_column": "image", "label_column": "label", "image_size": 24, "resize": "squash", "bit_depth": None}
    own |= {"val_size": 0.25, "test_size": 0.25, "test_seed": 0}

    def make_ready(**changes: Any) -> HuggingFace:
        module = HuggingFace(**{**COMMON, **own, **changes})
        module.prepare_data()
        module.setup("fit")
        return module

    return make_ready


@pytest.fixture(params=["shapes", "cifar", "folder"])
def make_module(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ImageDataModule]:
    """Return a factory of each class of data modules in turn, prepared and set up."""
    if request.param == "cifar":
        small = request.getfixturevalue("small_cifar")
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / small.release.binary.name).write_bytes(small.binary)
    elif request.param == "folder":
        write_folder(tmp_path / "images", num_train=35, num_test=13)
    make = request.getfixturevalue(f"{request.param}_module")

    def make_ready(**changes: Any) -> ImageDataModule:
        module: ImageDataModule = make(**changes)
        module.prepare_data()
        module.setup("fit")
        return module

    return make_ready


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """Limit the address space, so that the allocations of a bomb fail with a MemoryError, which no test expects."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 600 * 2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
