"""Checkpoint files: whole, verified, in pairs, and of plain data."""

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import getstate

import pytest
import torch

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.training.checkpoint_io import (
    AtomicCheckpointIO,
    find_newest_checkpoint,
    hash_weights,
    read_checkpoint,
    verify_checkpoint,
)

WEIGHTS = {"state_dict": {"network.w": torch.arange(1000.0)}}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Create a run with two checkpoints, of steps 1 and 2."""
    run = RunDirectory(tmp_path)
    io = AtomicCheckpointIO()
    for step in (1, 2):
        io.save_checkpoint(WEIGHTS | {"global_step": step}, run.last, storage_options=run.previous)
    return run


def test_the_one_before_is_kept(run: RunDirectory) -> None:
    assert [read_checkpoint(path)["global_step"] for path in (run.last, run.previous)] == [2, 1]
    assert {file.name for file in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}, "no temporary files"
    assert find_newest_checkpoint(run) == (run.last, [])


def test_other_programs_can_read_it(run: RunDirectory) -> None:
    assert zipfile.ZipFile(run.last).testzip() is None
    assert torch.load(run.last, weights_only=True, mmap=True)["global_step"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda whole, k=k: whole[:k] + bytes([whole[k] ^ 1]) + whole[k:][1:] for k in (0, 40, 700, -30, -1)),
        lambda whole: whole[:-100],
        lambda whole: whole + b"x",
        lambda whole: b"",
        lambda whole: b"PK",
        lambda whole: b"\0" * 5000,
    ],
)
def test_a_wrong_bit_a_torn_a_longer_and_another_file_are_detected(
    run: RunDirectory, damage: Callable[[bytes], bytes]
) -> None:
    run.last.write_bytes(damage(run.last.read_bytes()))
    with pytest.raises(UserError, match=r"last.ckpt is damaged"):
        verify_checkpoint(run.last)
    path, problems = find_newest_checkpoint(run)
    assert path == run.previous
    assert "last.ckpt is damaged" in problems[0]


def test_all_damaged_is_an_error(run: RunDirectory) -> None:
    for path in (run.last, run.previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"(?s)last.ckpt is damaged.*previous.ckpt is damaged.*has no checkpoint to resume from"
    ):
        find_newest_checkpoint(run)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert find_newest_checkpoint(RunDirectory(tmp_path)) == (None, [])


def test_hyperparameters_become_plain(tmp_path: Path) -> None:
    hyperparameters = {"lr": 0.1, "path": tmp_path, "nested": {"sizes": (1, 2), "network": torch.nn.ReLU()}}
    AtomicCheckpointIO().save_checkpoint({"hyper_parameters": hyperparameters}, tmp_path / "a.ckpt")
    plain = read_checkpoint(tmp_path / "a.ckpt")["hyper_parameters"]
    assert plain == {"lr": 0.1, "nested": {"sizes": [1, 2]}}


def test_unreadable_objects_are_not_saved(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"it holds pathlib.*Path.*on_save_checkpoint"):
        AtomicCheckpointIO().save_checkpoint(WEIGHTS | {"path": Path("/")}, run.last, storage_options=run.previous)
    assert [read_checkpoint(path)["global_step"] for path in (run.last, run.previous)] == [2, 1]


class Weights(torch.Tensor):
    """Tensor of a user's class."""


def with_attribute(value: object, owner: torch.Tensor | OrderedDict[str, int]) -> object:
    owner.attribute = value  # type: ignore[union-attr]
    return owner


@pytest.mark.parametrize(
    "value",
    [
        [{"a": (1, Path("/"))}],
        {Path("/"): 1},
        with_attribute(Path("/"), torch.ones(1)),
        with_attribute(Path("/"), OrderedDict(a=1)),
        torch.ones(1).as_subclass(Weights),
        2**2040,  # torch writes an integer of 256 bytes, but can't read it
    ],
    ids=["nested", "key", "tensor attribute", "dict attribute", "tensor subclass", "integer"],
)
def test_unreadable_objects_are_found_wherever_they_are(run: RunDirectory, value: object) -> None:
    with pytest.raises(UserError, match="not a checkpoint that can be read safely"):
        AtomicCheckpointIO().save_checkpoint(WEIGHTS | {"value": value}, run.last, storage_options=run.previous)
    assert read_checkpoint(run.last)["global_step"] == 2


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1, 2},
        1j,
        -(2**2030),
        torch.float16,
        torch.Size([1]),
        torch.ones(2, dtype=torch.uint16),
    ],
    ids=str,
)
def test_rarer_objects_that_can_be_read_are_saved(run: RunDirectory, value: object) -> None:
    AtomicCheckpointIO().save_checkpoint({"value": value}, run.last)
    assert str(read_checkpoint(run.last)["value"]) == str(value)


def test_a_checkpoint_of_plain_data_is_not_read_back(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    state = {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()], "random": getstate()}
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("read back"))
    AtomicCheckpointIO().save_checkpoint(state, run.last)
    monkeypatch.undo()
    torch.testing.assert_close(read_checkpoint(run.last)["optimizer_states"], state["optimizer_states"])


def test_hash_of_weights_sees_names_types_shapes_and_bits() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(1)}
    others = [
        {"a": torch.tensor([1.0, 2.0])},
        weights | {"a": torch.tensor([[1.0, 2.0]])},
        weights | {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        weights | {"a": torch.tensor([1.0, 2.0 + 2**-22])},
        {"c": weights["a"], "b": weights["b"]},
    ]
    assert hash_weights(weights) == hash_weights(dict(reversed(weights.items())))
    assert len({hash_weights(state) for state in [weights, *others]}) == 6
