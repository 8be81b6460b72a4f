"""Data sets of torchvision, on small ones in the published formats; downloads from a server on loopback."""

import gc
import hashlib
import inspect
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from support.exact_resume import differences, new_run, outcome, train_until
from support.processes import obey_modes, wait_until
from support.published import PUBLISHED, Content, gzipped, idx_files, random_images, write_cifar100, write_mnist
from support.runs import Command, compose_config
from support.snippets import DOCS
from tqdm import tqdm

from litlab.config.schema import (
    TORCHVISION_OF_ANY_SIZE,
    TORCHVISION_OF_ONE_SIZE,
    TORCHVISION_VARIANTS,
    TORCHVISION_WITH_VALIDATION,
)
from litlab.data.torchvision import SOURCES, Torchvision
from litlab.errors import UserError

Make = Callable[..., Torchvision]


def ready(module: Torchvision) -> Torchvision:
    module.prepare_data()
    module.setup()
    return module


def assert_holds(module: Torchvision, content: Content) -> None:
    for split, (images, labels) in (("train", content.train), ("test", content.test)):
        np.testing.assert_array_equal(getattr(module.arrays, f"{split}_images").numpy(), images)
        np.testing.assert_array_equal(getattr(module.arrays, f"{split}_labels").numpy(), labels)
    assert module.info.class_names == content.names


@pytest.mark.parametrize("name", PUBLISHED)
def test_reads_the_published_format(
    torchvision_module: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, settings = PUBLISHED[name]
    content = write(tmp_path / "root", monkeypatch)
    if content.num_val or not len(content.test[0]):
        settings = settings | {"val_size": 0.2}
    module = ready(torchvision_module(name=name, **settings))
    assert_holds(module, content)
    num_rows = len(content.train[0]) + len(content.test[0])
    assert module.info.num_train + module.info.num_val + module.info.num_test == num_rows
    if content.num_val:
        assert module.val_indices.tolist() == list(
            range(len(content.train[0]) - content.num_val, len(content.train[0]))
        )
    assert (len(module.test_indices) > 0) == (len(content.test[0]) == 0), "a test is drawn only where there is none"
    variant = f" ({settings['variant']})" if "variant" in settings else ""
    assert module.info.name == name + variant


def test_folds_of_data_with_a_validation_split_are_refused(
    torchvision_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, settings = PUBLISHED["DTD"]
    write(tmp_path / "root", monkeypatch)
    with pytest.raises(UserError, match=r"94 validation images of its own, .*set data\.folds=null data\.fold=null$"):
        ready(torchvision_module(name="DTD", folds=3, fold=0, **settings))
    named = re.search(r"validation split\s\(([^)]*)\)\scan't", (DOCS / "k_fold.md").read_text())
    assert named is not None
    assert named[1].replace("\n", " ").split(", ") == [name for name, source in SOURCES.items() if source.val]


def test_the_table_agrees_with_the_classes_of_torchvision() -> None:
    """Else a data set of the list would be refused by torchvision, or the schema and the table would differ."""
    assert set(SOURCES) == {*TORCHVISION_OF_ONE_SIZE, *TORCHVISION_OF_ANY_SIZE}
    assert not set(TORCHVISION_OF_ONE_SIZE) & set(TORCHVISION_OF_ANY_SIZE)
    assert [name for name, source in SOURCES.items() if source.val] == [*TORCHVISION_WITH_VALIDATION]
    for name, source in SOURCES.items():
        parameters: dict[str, Any] = {}
        for base in reversed(inspect.getmro(getattr(torchvision.datasets, name))):
            if base.__module__.startswith("torchvision.datasets.") and "__init__" in vars(base):
                parameters |= inspect.signature(base).parameters
        given = {"root", *[key for split in (source.train, source.val, source.test) for key in split or ()]}
        given |= {TORCHVISION_VARIANTS[name].argument} if name in TORCHVISION_VARIANTS else set()
        given |= {"download"} if source.has_download else set()
        assert given <= set(parameters), name
        assert source.has_download or name == "StanfordCars" or "download" not in parameters


# Data sets of torchvision that are not for classification, are larger than memory, or are no published images.
OTHERS = """
    CREStereo CarlaStereo CelebA Cityscapes CocoCaptions CocoDetection DatasetFolder ETH3DStereo FakeData
    FallingThingsStereo Flickr30k Flickr8k FlyingChairs FlyingThings3D HD1K HMDB51 INaturalist ImageFolder ImageNet
    InStereo2k Kinetics Kitti Kitti2012Stereo Kitti2015Stereo KittiFlow LFWPairs LFWPeople LSUN LSUNClass
    Middlebury2014Stereo MovingMNIST Omniglot PhotoTour Places365 SBDataset SBU SUN397 SceneFlowStereo Sintel
    SintelStereo UCF101 VOCDetection VOCSegmentation VisionDataset WIDERFace wrap_dataset_for_transforms_v2
"""


def test_each_data_set_of_torchvision_is_supported_or_left_out_on_purpose() -> None:
    assert set(torchvision.datasets.__all__) - set(OTHERS.split()) == set(SOURCES)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.name=CocoDetection"], "data.name=CocoDetection: expected a classification data set of torchvision"),
        (["data.name=cifar-100"], "did you mean cifar100; one of Caltech101, Caltech256, CIFAR10, CIFAR100"),
        (["data.name=ImageNet"], "take data=image_folder data.root=FOLDER data.storage=stream"),
        ([], "data.name: a value is missing"),
        (["data.name=DTD"], "data.image_size: the images of DTD have different sizes; set one"),
        (["data.name=EMNIST"], "data.variant: EMNIST has several; set one of balanced, byclass"),
        (["data.name=EMNIST", "data.variant=all"], "data.variant=all: expected balanced, byclass"),
        (["data.name=MNIST", "data.variant=letters"], "data.variant=letters: MNIST has no variants"),
        (["data.name=MNIST", "data.image_size=[28]"], "data.image_size=[28]"),
        (["data.name=MNIST", "data.resize=stretch"], "data.resize=stretch: expected 'squash', 'crop' or 'pad'"),
    ],
)
def test_a_wrong_setting_is_refused_at_composition(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_config("data=torchvision", *overrides)
    assert expected in str(refused.value)


def test_the_root_is_not_read_again(torchvision_module: Make, tmp_path: Path) -> None:
    content = write_mnist(tmp_path / "root")
    before = ready(torchvision_module(name="MNIST"))
    (tmp_path / "root").rename(tmp_path / "moved")
    assert_holds(ready(torchvision_module(name="MNIST")), content)
    resized = {"root": str(tmp_path / "moved"), "image_size": [14, 20]}
    other = ready(torchvision_module(name="MNIST", **resized))
    assert other.info.image_shape == (1, 14, 20)
    assert other.info.fingerprint != before.info.fingerprint


def test_replaced_files_are_decoded_again(torchvision_module: Make, tmp_path: Path) -> None:
    content = write_mnist(tmp_path / "root")
    before = ready(torchvision_module(name="MNIST"))
    path = tmp_path / "root" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 255
    path.write_bytes(bytes(raw))
    after = ready(torchvision_module(name="MNIST"))
    assert after.info.fingerprint != before.info.fingerprint
    assert int(after.arrays.train_images[-1, 0, -1, -1]) == int(content.train[0][-1, 0, -1, -1]) ^ 255
    (tmp_path / "root").rename(tmp_path / "moved")
    assert ready(torchvision_module(name="MNIST")).info.fingerprint == after.info.fingerprint


def test_a_replaced_file_of_the_same_size_with_an_older_time_is_decoded(
    torchvision_module: Make, tmp_path: Path
) -> None:
    """As `cp -p` and `rsync -a` leave it; the newest file is another one, and the folder is behind a link."""
    content = write_mnist(tmp_path / "shared")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "MNIST").symlink_to(tmp_path / "shared" / "MNIST")
    (tmp_path / "shared" / "MNIST" / "circle").symlink_to(tmp_path / "root")
    ready(torchvision_module(name="MNIST"))
    path = tmp_path / "shared" / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    raw = np.frombuffer(path.read_bytes(), np.uint8).copy()
    raw[8:] = 9 - raw[8:]
    path.write_bytes(raw.tobytes())
    os.utime(path, (10**9, 10**9))
    labels = ready(torchvision_module(name="MNIST")).arrays.train_labels
    assert labels.tolist() == (9 - content.train[1]).tolist()


def test_what_comes_into_the_root_after_the_decoding_changes_nothing(torchvision_module: Make, tmp_path: Path) -> None:
    content = write_mnist(tmp_path / "root")
    module = torchvision_module(name="MNIST")
    module.prepare_data()
    (tmp_path / "root" / "FashionMNIST").write_text("downloaded by another job")
    module.setup()
    assert_holds(module, content)


@pytest.mark.parametrize("folder", ["cache", "."])
def test_a_cache_in_the_root_is_used_again(torchvision_module: Make, tmp_path: Path, folder: str) -> None:
    content = write_mnist(tmp_path / "root")
    cache = tmp_path / "root" / folder
    assert_holds(ready(torchvision_module(name="MNIST", cache=str(cache))), content)
    (entry,) = cache.glob("torchvision-*")
    (cache / f".{entry.name}.lock").touch()
    assert_holds(ready(torchvision_module(name="MNIST", cache=str(cache))), content)
    assert list(cache.glob("torchvision-*")) == [entry]


def test_a_read_only_root_and_folder(torchvision_module: Make, tmp_path: Path) -> None:
    content = write_mnist(tmp_path / "data" / "root")
    folders = [tmp_path / "data", *(tmp_path / "data").rglob("")]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert_holds(ready(torchvision_module(name="MNIST", root=str(tmp_path / "data" / "root"))), content)
        assert [path.name for path in (tmp_path / "data").iterdir() if os.geteuid()] in ([], ["root"])
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.fixture(autouse=True)
def _own_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks share tqdm's default lock with this process: one that is killed while it draws would keep it for good."""
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)


@pytest.fixture
def mnist_server(server: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Content]:
    """Serve the four archives of a small MNIST, which torchvision expects."""
    train, test = (random_images(num, (1, 28, 28), 10, seed) for num, seed in ((40, 1), (20, 2)))
    archives = gzipped(idx_files(train, test))
    server.files = {f"/mnist/{name}": content for name, content in archives.items()}
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://{server.host}/mnist/"])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    return server, Content(train, test, tuple(torchvision.datasets.MNIST.classes))


def gets(server: Any) -> list[str]:
    return [path for path, _ in server.requests]


def test_downloads_once_and_decodes_once(
    torchvision_module: Make, mnist_server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server, content = mnist_server
    assert_holds(ready(torchvision_module(name="MNIST")), content)
    assert capfd.readouterr().out == f"Downloading MNIST by torchvision to {tmp_path}/root\n"
    num_requests = len(server.requests)
    assert len(set(gets(server))) == 4
    assert_holds(ready(torchvision_module(name="MNIST", cache=str(tmp_path / "other"))), content)
    assert len(server.requests) == num_requests
    assert {path.name for path in tmp_path.iterdir()} <= {"root", "cache", "other", ".root.lock"}


def test_downloads_into_an_empty_folder_behind_a_link(
    torchvision_module: Make, mnist_server: Any, tmp_path: Path
) -> None:
    _, content = mnist_server
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert_holds(ready(torchvision_module(name="MNIST")), content)
    assert (tmp_path / "root").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["MNIST"]


@pytest.mark.parametrize("files", [None, (), ("README",)])
def test_two_processes_at_once_download_once(
    torchvision_module: Make,
    mnist_server: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    files: tuple[str, ...] | None,
) -> None:
    """With files the root exists, and only it is writable, as where a disk is mounted."""
    server, content = mnist_server
    if files is not None:
        (tmp_path / "root").mkdir()
        for name in files:
            (tmp_path / "root" / name).touch()
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        tmp_path.chmod(0o555)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    modules = [torchvision_module(name="MNIST", cache=str(tmp_path / name)) for name in ("one", "two")]

    def prepare(module: Torchvision) -> None:
        obey_modes()
        barrier.wait()
        module.prepare_data()

    processes = [context.Process(target=prepare, args=(module,)) for module in modules]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    tmp_path.chmod(0o755)
    assert [process.exitcode for process in processes] == [0, 0]
    assert capfd.readouterr().out.count("Downloading MNIST") == 1
    assert set(Counter(gets(server)).values()) == {2}, "torchvision asks for each file twice, first for redirections"
    for module in modules:
        module.setup()
        assert_holds(module, content)
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"MNIST", *(files or ())}


def test_a_killed_download_leaves_no_half_data_set(torchvision_module: Make, mnist_server: Any, tmp_path: Path) -> None:
    server, content = mnist_server
    last = "/mnist/t10k-labels-idx1-ubyte.gz"
    server.held, server.release = last, threading.Event()
    process = multiprocessing.get_context("fork").Process(target=torchvision_module(name="MNIST").prepare_data)
    process.start()
    wait_until(lambda: last in gets(server), 30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    server.release.set()
    assert not (tmp_path / "root").exists()
    server.held, server.release = None, None
    assert (tmp_path / ".root.part" / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()
    assert_holds(ready(torchvision_module(name="MNIST")), content)
    assert not (tmp_path / ".root.part").exists()


def test_a_killed_download_into_a_shared_folder_leaves_no_half_data_set(
    torchvision_module: Make, mnist_server: Any, tmp_path: Path
) -> None:
    """What others put there stays; archives that are there already are not fetched again."""
    server, content = mnist_server
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (tmp_path / "root" / "notes.txt").write_text("precious")
    first, last = "train-images-idx3-ubyte.gz", "/mnist/t10k-labels-idx1-ubyte.gz"
    (raw / first).write_bytes(server.files[f"/mnist/{first}"])
    server.held, server.release = last, threading.Event()
    process = multiprocessing.get_context("fork").Process(target=torchvision_module(name="MNIST").prepare_data)
    process.start()
    wait_until(lambda: last in gets(server), 30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    server.release.set()
    server.held, server.release = None, None
    assert [path.name for path in raw.iterdir()] == [first], "nothing is extracted where torchvision looks"
    assert_holds(ready(torchvision_module(name="MNIST")), content)
    assert f"/mnist/{first}" not in gets(server)
    assert (tmp_path / "root" / "notes.txt").read_text() == "precious"
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"MNIST", "notes.txt"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torchvision leaves responses open
def test_a_download_that_fails_says_what_to_do(torchvision_module: Make, mnist_server: Any, tmp_path: Path) -> None:
    server, _ = mnist_server
    server.files = {}
    with pytest.raises(UserError) as refused:
        torchvision_module(name="MNIST").prepare_data()
    message = str(refused.value)
    assert message.startswith(f"data.name=MNIST: there are no files in {tmp_path}/root, and torchvision can't download")
    assert "HTTP Error 404" in message
    assert "torchvision.datasets.MNIST(FOLDER, download=True)" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []
    del refused
    gc.collect()
    with pytest.raises(UserError, match="can't download them: put them there by hand"):
        torchvision_module(name="FER2013").prepare_data()


def test_a_damaged_file_is_refused(torchvision_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path / "root", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:9/nothing")
    path = tmp_path / "root" / "cifar-100-python" / "train"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"can't be used .Dataset not found or corrupted.* download them .*refused"):
        torchvision_module(name="CIFAR100").prepare_data()


def test_a_damaged_image_is_named(torchvision_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, settings = PUBLISHED["EuroSAT"]
    write(tmp_path / "root", monkeypatch)
    (tmp_path / "root" / "eurosat" / "2750" / "Forest" / "010.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"image 10 of EuroSAT can't be read .*010.jpg"):
        torchvision_module(name="EuroSAT", **settings).prepare_data()


def write_colors(folder: Path, suffix: str, num_images: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(num_images):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}{suffix}", format="PNG")


def refusal(make: Make, **settings: Any) -> str:
    with pytest.raises(UserError) as refused:
        make(**settings).prepare_data()
    return str(refused.value)


def test_a_missing_class_is_named(torchvision_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision numbers the classes that it finds in each split, so the labels after a missing one would be wrong."""
    root = tmp_path / "root"
    for sign in range(43):
        write_colors(root / "gtsrb" / "GTSRB" / "Training" / f"{sign:05}", ".ppm")
    write_colors(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images", ".ppm", 43)
    rows = [f"{sign}.ppm;{sign}" for sign in range(43)]
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(["Filename;ClassId", *rows]))
    signs = {"name": "GTSRB", "image_size": 16}
    torchvision_module(**signs).prepare_data()
    (root / "gtsrb" / "GTSRB" / "Training" / "00001").rename(tmp_path / "sign")
    assert "GTSRB lacks the folders of 1 class (gtsrb/GTSRB/Training/00001): copy them, or" in refusal(
        torchvision_module, **signs
    )

    for split in ("train", "val"):
        for wnid in torchvision.datasets.Imagenette._WNID_TO_CLASS:
            write_colors(root / "imagenette2-160" / split / wnid, ".jpeg")
    imagenette = {"name": "Imagenette", "variant": "160px", "image_size": 16, "test_size": 0}
    torchvision_module(**imagenette).prepare_data()
    (root / "imagenette2-160" / "val" / "n02979186").rename(tmp_path / "cassette player")
    assert "the validation split of Imagenette lacks 1 class (cassette player): copy" in refusal(
        torchvision_module, **imagenette
    )
    (root / "imagenette2-160" / "train" / "n02979186").rename(tmp_path / "cassette player too")
    assert "Imagenette has 9 classes in these files, expected 10: copy those" in refusal(
        torchvision_module, **imagenette
    )

    write, settings = PUBLISHED["EuroSAT"]
    write(root, monkeypatch)
    (root / "eurosat" / "2750" / "River").rename(tmp_path / "river")
    message = refusal(torchvision_module, name="EuroSAT", **settings)
    assert "EuroSAT lacks the folders of 1 class (eurosat/2750/River): copy" in message


GRAY = (
    "data=torchvision", "data.name=MNIST", "data.val_size=10", "data.batch_size=8", "data.cutout=4", "data.mixup=0.2",
    "data.color_jitter={brightness:0.4,contrast:0.4,saturation:0.4,hue:0.1}",
    "data.rand_augment={num_ops:2,magnitude:9}",
    "model.widths=[2,4]", "model.hidden=[8]", "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
    "threads=1",
)  # fmt: skip


def test_a_run_on_gray_images_resumes_exactly(tmp_path: Path) -> None:
    write_mnist(tmp_path / "root")
    overrides = (*GRAY, f"data.root={tmp_path / 'root'}", f"data.cache={tmp_path / 'cache'}")
    whole, config = new_run(tmp_path / "whole", *overrides)
    train_until(whole, config, None)
    network = torch.load(whole.last, weights_only=True)["state_dict"]
    assert next(iter(network.values())).shape[1] == 1, "the network sees one channel"
    stopped, config = new_run(tmp_path / "stopped", *overrides)
    assert train_until(stopped, config, 4) is None
    train_until(stopped, config, None)
    assert differences(outcome(whole), outcome(stopped)) == []


def test_by_the_command_line(litlab: Command, tmp_path: Path) -> None:
    write_mnist(tmp_path / "root")
    trained = litlab("train", *GRAY, f"data.root={tmp_path / 'root'}", "name=gray")
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "project" / "outputs" / "gray").iterdir()
    evaluated = litlab("evaluate", str(run), "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert '"same_data": true' in evaluated.stdout
    refused = litlab("train", "data=torchvision", "data.name=FER2013", "trainer=cpu", "name=absent")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "put them there by hand" in refused.stderr
    assert not (tmp_path / "project" / "outputs" / "absent").exists()
