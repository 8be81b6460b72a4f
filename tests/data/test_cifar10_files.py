import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10 as TORCHVISION

from litlab.data.cifar10 import OFFICIAL, parse_binary, parse_pickle
from litlab.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)


def test_official_checksums_are_torchvisions() -> None:
    assert [list(each) for each in OFFICIAL.python_md5] == TORCHVISION.train_list + TORCHVISION.test_list
    assert OFFICIAL.python.name == TORCHVISION.filename


def test_binary_records() -> None:
    content = b"".join(bytes([label]) + row.tobytes() for label, row in zip([3, 0, 9, 1], PIXELS, strict=True))
    images, labels = parse_binary(content, "x")
    assert labels.tolist() == [3, 0, 9, 1]
    assert images[2, 1, 5, 7] == PIXELS[2, 1024 + 5 * 32 + 7]
    with pytest.raises(UserError, match="x has 12,291 bytes, expected a multiple of 3,073"):
        parse_binary(content[:-1], "x")
    with pytest.raises(UserError, match="x: expected a label from 0 to 9 for each image"):
        parse_binary(b"\x0a" + content[1:], "x")


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_python_3_writes(protocol: int) -> None:
    content = pickle.dumps({b"data": PIXELS, b"labels": [3, 0, 9, 1]}, protocol=protocol)
    if protocol == 2:  # bytes go through _codecs.encode there, which the official files don't need
        with pytest.raises(UserError, match=r"asks for _codecs.encode"):
            parse_pickle(content, "x")
    else:
        images, labels = parse_pickle(content, "x")
        np.testing.assert_array_equal(images.reshape(4, 3072), PIXELS)
        assert labels.tolist() == [3, 0, 9, 1]


class _Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_hostile_pickles_are_refused_and_not_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for hostile, name in (
        (_Hostile(os.system, f"touch {mark}"), "posix.system"),
        (_Hostile(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (_Hostile(np.load, str(mark)), "numpy.load"),
        (_Hostile(getattr, np.ndarray, "tofile"), "builtins.getattr"),
    ):
        for content in ({b"data": hostile}, {b"data": PIXELS, b"labels": [0, hostile, 1, 2]}):
            with pytest.raises(UserError, match=f"x: the pickle asks for {name}, .*: refused"):
                parse_pickle(pickle.dumps(content, protocol=4), "x")
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": PIXELS}),
        pickle.dumps({b"data": PIXELS.astype(np.float32), b"labels": [0, 1, 2, 3]}),
        pickle.dumps({b"data": PIXELS[:, :5], b"labels": [0, 1, 2, 3]}),
        pickle.dumps({b"data": b"bytes", b"labels": [0]}),
        pickle.dumps({b"data": PIXELS, b"labels": ["cat"] * 4}),
    ],
)
def test_other_pickles(content: bytes) -> None:
    with pytest.raises(UserError, match=r"x is not a file of CIFAR-10 \(.*\): download it again"):
        parse_pickle(content, "x")


def test_wrong_labels() -> None:
    for labels in ([0, 1, 2], [0, 1, 2, 10], [0, 1, 2, -1]):
        with pytest.raises(UserError, match="x: expected a label from 0 to 9 for each image"):
            parse_pickle(pickle.dumps({b"data": PIXELS, b"labels": labels}), "x")
