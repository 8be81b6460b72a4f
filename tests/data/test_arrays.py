import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays, check_images, check_labels, mean_and_std
from litlab.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 2, 3), dtype=np.uint8)


class Plan:
    """Decode PIXELS (4 to train, 2 to test), or fail half way; count the calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.num_fills = 0

    def __call__(self) -> DecodingPlan:
        return DecodingPlan("six", ("a", "b"), (1, 2, 3), 4, 2, self.fill)

    def fill(self, train_images: np.ndarray, train_labels: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        self.num_fills += 1
        train_images[:] = PIXELS[:4]
        if self.error is not None:
            raise self.error
        train_labels[:], images[:], labels[:] = [0, 1, 0, 1], PIXELS[4:], [1, 0]


def fill_with_ones(*arrays: np.ndarray) -> None:
    for array in arrays:
        array[:] = 1


def test_decoded_arrays_are_loaded(tmp_path: Path) -> None:
    cache, plan = ArrayCache(tmp_path / "new" / "cache"), Plan()
    cache.build("six", plan)
    cache.build("six", plan)
    arrays = cache.load("six")
    assert plan.num_fills == 1
    assert (arrays.name, arrays.class_names) == ("six", ("a", "b"))
    assert torch.equal(arrays.train_images, torch.from_numpy(PIXELS[:4]))
    assert torch.equal(arrays.test_images, torch.from_numpy(PIXELS[4:]))
    assert (arrays.train_labels.tolist(), arrays.test_labels.tolist()) == ([0, 1, 0, 1], [1, 0])
    rows = PIXELS[:4].astype(np.int64)
    assert arrays.train_sums[:, 0].tolist() == rows.sum((2, 3)).tolist()
    assert arrays.train_sums[:, 1].tolist() == (rows**2).sum((2, 3)).tolist()
    assert arrays.train_sums[0].dtype == torch.int64
    digest = hashlib.sha256()
    for array in (PIXELS[:4], np.array([0, 1, 0, 1]), PIXELS[4:], np.array([1, 0])):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    assert arrays.fingerprint == digest.hexdigest()


@pytest.mark.parametrize(("num_images", "lines"), [(5000, []), (5001, ["Decoding 5,001 images of dots, once, into "])])
def test_decoding_many_images_is_announced(tmp_path: Path, capsys: Any, num_images: int, lines: list[str]) -> None:
    plan = DecodingPlan("dots", ("a", "b"), (1, 1, 1), num_images - 1, 1, fill_with_ones)
    for _ in range(2):
        ArrayCache(tmp_path).build("dots", lambda: plan)
    assert capsys.readouterr().out.splitlines() == [f"{line}{tmp_path}" for line in lines]


def test_files_are_plain_arrays_and_processes_cannot_change_them(tmp_path: Path) -> None:
    (tmp_path / ".six.part-abc").mkdir()  # left by a killed process
    cache = ArrayCache(tmp_path)
    cache.build("six", Plan())
    assert [path.name for path in tmp_path.iterdir()] == ["six"]
    parts = {f"{name}.npy" for name in ("train_images", "train_labels", "test_images", "test_labels", "train_sums")}
    assert {path.name for path in (tmp_path / "six").iterdir()} == {*parts, "arrays.json"}
    for part in parts:
        np.load(tmp_path / "six" / part, allow_pickle=False)
    cache.load("six").train_images.zero_()
    assert torch.equal(cache.load("six").train_images, torch.from_numpy(PIXELS[:4]))


def test_processes_share_the_memory_of_what_they_read(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.build("ones", lambda: DecodingPlan("ones", ("a", "b"), (3, 32, 32), 1000, 10, fill_with_ones))
    images = cache.load("ones").train_images
    assert images.long().sum() == images.numel()
    _, _, mapping = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "ones" / "train_images.npy"))
    fields = (line.partition(":") for line in mapping.splitlines()[1:12])
    kilobytes = {name: int(value.split()[0]) for name, _, value in fields}
    assert kilobytes["Rss"] * 1024 >= images.numel()
    assert kilobytes["Private_Dirty"] == 0, "no page of it is this process's own"


def other_format(entry: Path) -> None:
    index = json.loads((entry / "arrays.json").read_text())
    (entry / "arrays.json").write_text(json.dumps({**index, "format": 0}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda entry: os.truncate(entry / "train_images.npy", 140),
    "extended": lambda entry: os.truncate(entry / "test_labels.npy", (entry / "test_labels.npy").stat().st_size + 8),
    "other array": lambda entry: np.save(entry / "train_labels.npy", np.array([0, 1, 0, 1], dtype=np.int32)),
    "pickled": lambda entry: np.save(entry / "train_labels.npy", np.array([Path, None], dtype=object)),
    "no index": lambda entry: (entry / "arrays.json").unlink(),
    "torn index": lambda entry: os.truncate(entry / "arrays.json", 50),
    "other format": other_format,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, damage: str) -> None:
    cache, plan = ArrayCache(tmp_path), Plan()
    cache.build("six", plan)
    DAMAGES[damage](tmp_path / "six")
    with pytest.raises(LookupError, match="six"):
        cache.load("six")
    cache.build("six", plan)
    assert plan.num_fills == 2
    assert torch.equal(cache.load("six").train_images, torch.from_numpy(PIXELS[:4]))
    assert [path.name for path in tmp_path.iterdir()] == ["six"]


@pytest.mark.parametrize("error", [UserError("broken image"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        ArrayCache(tmp_path).build("six", Plan(error))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The image cache .*file/cache can't be written .*: set data.cache"):
        ArrayCache(tmp_path / "file" / "cache").build("six", Plan())


def test_mean_and_deviation_are_exact_for_any_number_of_pixels() -> None:
    sums = torch.tensor([[[255 * 10**9], [255**2 * 10**9]]]).repeat(1000, 1, 1)
    assert mean_and_std(sums, 2 * 10**9) == ((0.5,), (0.5,))
    constant = torch.tensor([[[7 * 6], [7**2 * 6]]])
    assert mean_and_std(constant, 6) == ((7 / 255,), (1 / 255,))


def test_another_plan_is_carried_out_instead(tmp_path: Path) -> None:
    """Check that a plan that finds fewer images than it was made for leaves nothing of the others."""

    def fill(*arrays: np.ndarray) -> DecodingPlan:
        for array in arrays:
            array[:] = 9
        return DecodingPlan("fewer", ("a", "b"), (1, 1, 1), 2, 1, fill_with_ones, bit_depth=12, skipped=("x.png",))

    cache = ArrayCache(tmp_path)
    cache.build("fewer", lambda: DecodingPlan("more", ("a", "b"), (1, 1, 1), 5, 5, fill))
    arrays = cache.load("fewer")
    assert (arrays.train_images.tolist(), arrays.test_labels.tolist()) == ([[[[1]]], [[[1]]]], [1])
    assert (arrays.name, arrays.bit_depth, arrays.skipped) == ("fewer", 12, ("x.png",))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_images": torch.tensor([0.0, 1.0]).expand(4, 1, 3, 2)},
         "train_images are float32 from 0 to 1: expected uint8 from 0 to 255; multiply by 255 and convert by .byte()"),
        ({"test_images": torch.full((2, 1, 2, 3), -1.5)},
         "test_images are float32 from -1.5 to -1.5: expected uint8 from 0 to 255; scale to that range and convert by"),
        ({"train_images": torch.full((4, 1, 2, 3), 9)}, "train_images are int64 from 9 to 9: expected uint8"),
        ({"train_images": torch.zeros(4, 8, 9, 3, dtype=torch.uint8)},
         "train_images have the shape 4x8x9x3: expected n c h w; convert n h w c by .permute(0, 3, 1, 2)"),
        ({"train_images": torch.zeros(4, 2, 3, dtype=torch.uint8)}, "4x2x3: expected n c h w; add the axis of"),
        ({"train_images": torch.zeros(4, 6, dtype=torch.uint8)}, "4x6: expected n c h w; reshape them"),
        ({"test_images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8)},
         "train_images are 1x2x3 and test_images 1x2x2: expected one shape c h w for both"),
        ({"train_labels": torch.tensor([1, 2, 1, 2])},
         "train_labels are from 1 to 2: expected 4 class numbers from 0 to 1, one for each image, since class_names"),
        ({"test_labels": torch.tensor([-1, 0])}, "test_labels are from -1 to 0: expected 2 class numbers from 0 to 1"),
        ({"train_labels": torch.tensor([0, 1])}, "train_labels have the shape 2: expected 4 class numbers from 0 to 1"),
        ({"train_labels": torch.zeros(4, 2)}, "train_labels have the shape 4x2: expected 4 class numbers"),
        ({"train_labels": torch.zeros(4)}, "train_labels are float32: expected 4 class numbers from 0 to 1"),
    ],
)  # fmt: skip
def test_tensors_of_another_type_layout_or_range_are_refused(changes: dict[str, Any], expected: str) -> None:
    tensors: dict[str, Any] = {
        "train_images": torch.from_numpy(PIXELS[:4]),
        "train_labels": torch.tensor([0, 1, 0, 1], dtype=torch.int32),
        "test_images": torch.from_numpy(PIXELS[4:]),
        "test_labels": torch.tensor([1, 0]),
    }
    arrays = ImageArrays.from_tensors(name="six", class_names=["a", "b"], **tensors)
    assert arrays.train_labels.dtype == torch.int64
    with pytest.raises(UserError) as refused:
        ImageArrays.from_tensors(name="six", class_names=["a", "b"], **(tensors | changes))
    assert expected in str(refused.value)


def test_arrays_and_lists_are_no_tensors() -> None:
    with pytest.raises(UserError, match="train_images is a ndarray: expected a uint8 tensor n c h w; "):
        check_images("train_images", PIXELS)
    with pytest.raises(UserError, match="train_labels is a list: expected a tensor"):
        check_labels("train_labels", [0, 1], num_images=2, num_classes=2)
