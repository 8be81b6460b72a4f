"""A small release of CIFAR-10."""

import hashlib
import io
import tarfile
from dataclasses import dataclass

import numpy as np

from litlab.data.cifar10 import Release
from litlab.data.download import Checksum

FILES = ("data_batch_1", "data_batch_2", "test_batch")
NUM_PER_FILE = 50


@dataclass(frozen=True)
class SmallCifar:
    """A release of two training files and a test file, in all three forms, with its content."""

    release: Release
    binary: bytes
    python: bytes
    pickles: dict[str, bytes]  # by path
    images: np.ndarray  # file image c h w
    labels: np.ndarray  # file image


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


def make_small_cifar() -> SmallCifar:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, NUM_PER_FILE, 3, 32, 32), dtype=np.uint8)
    labels = np.stack([random.permutation(np.arange(NUM_PER_FILE) % 10) for _ in range(3)])
    binaries, pickles = {"cifar-10-batches-bin/readme.html": b"no records"}, {}
    for name, pixels, classes in zip(FILES, images, labels, strict=True):
        records = np.concatenate([classes[:, None].astype(np.uint8), pixels.reshape(NUM_PER_FILE, -1)], axis=1)
        binaries[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
        pickles[f"cifar-10-batches-py/{name}"] = python2_pickle(pixels.reshape(NUM_PER_FILE, -1), classes.tolist())
    binary = tar_gz(binaries)
    python = tar_gz(pickles)
    release = Release(
        binary=checksum("cifar-10-binary.tar.gz", binary),
        python=checksum("cifar-10-python.tar.gz", python),
        python_md5=tuple((path.split("/")[1], hashlib.md5(content).hexdigest()) for path, content in pickles.items()),
        num_per_file=NUM_PER_FILE,
    )
    return SmallCifar(release, binary, python, pickles, images, labels)


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Write a pickle as Python 2 and NumPy 1 wrote the official ones: protocol 2, byte strings, numpy.core."""
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
