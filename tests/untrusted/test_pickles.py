"""Hostile pickles in checkpoints are refused; each is shown to work where pickles are trusted."""

import contextlib
import functools
import hashlib
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.hostile import Touch
from torch import nn

import litlab
from litlab.cli import evaluate, export
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign
from litlab.training.checkpoint_io import AtomicCheckpointIO


class Evaluates:
    """Object whose pickle runs Python code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


class Loads(Evaluates):
    """Object whose pickle makes torch unpickle another one."""

    def __reduce__(self) -> tuple[Any, ...]:
        inner = io.BytesIO(pickle.dumps(Touch(self.mark)))
        return functools.partial(torch.load, weights_only=False), (inner,)


class Calls(Evaluates):
    """Object whose pickle calls a shell function of torch."""

    def __reduce__(self) -> tuple[Any, ...]:
        from torch.utils.collect_env import run

        return run, (f"touch {self.mark}",)


def state_of(value: Any) -> dict[str, Any]:
    return {"state_dict": OrderedDict(w=torch.zeros(2)), "hyper_parameters": {"a": [value]}}


def in_zip(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def in_old_format(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


PICKLES: dict[str, Callable[[Path], bytes]] = {
    "shell": lambda mark: in_zip({"state_dict": Touch(mark)}),
    "code": lambda mark: in_zip(state_of(Evaluates(mark))),
    "torch.load": lambda mark: in_zip(state_of(Loads(mark))),
    "torch's shell": lambda mark: in_zip({"state_dict": {"network.weight": Calls(mark)}}),
    "old format": lambda mark: in_old_format({"state_dict": Touch(mark)}),
    "bare pickle": lambda mark: pickle.dumps({"state_dict": Evaluates(mark)}, protocol=2),
    "instead of a dict": lambda mark: in_zip(Touch(mark)),
}


def sealed(content: bytes) -> bytes:
    """Add litlab's checksum, as an attacker would."""
    body = content.removesuffix(b"\0\0")
    comment = b"sha256:" + hashlib.sha256(body + b"\0\0").hexdigest().encode()
    return body + struct.pack("<H", len(comment)) + comment


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("own", [False, True], ids=["theirs", "own"])
def test_a_hostile_checkpoint_is_refused_in_any_run(name: str, own: bool, run: Path, mark: Path) -> None:
    """A hostile checkpoint may have been put into the user's own run, too."""
    best = run / "checkpoints" / "best.ckpt"
    content = PICKLES[name](mark)
    if own:
        sign(RunDirectory(run))
    for written in (content, sealed(content)):
        best.write_bytes(written)
        with pytest.raises(UserError, match=r"best\.ckpt") as refused:
            litlab.load(run)
        assert "weights_only=False" not in str(refused.value), "no advice to trust it"
        with pytest.raises(UserError, match=r"best\.ckpt"):
            export.main([str(run), "--format", "pt2"])
    assert not mark.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no checkpoint, as torch finds out afterwards
        torch.load(best, weights_only=False)
    assert mark.exists(), "harmless: the test shows nothing"


def test_a_hostile_checkpoint_is_not_evaluated(whole: RunDirectory, mark: Path) -> None:
    whole.best.write_bytes(sealed(PICKLES["shell"](mark)))
    with pytest.raises(UserError, match=r"best\.ckpt"):
        evaluate.main([str(whole.path)])
    assert not mark.exists()


def test_a_checkpoint_is_not_downloaded() -> None:
    """Lightning would download and unpickle it."""
    with pytest.raises(UserError, match="no such checkpoint"):
        AtomicCheckpointIO().load_checkpoint("http://127.0.0.1:9/best.ckpt")


def test_a_pickled_module_is_refused(run: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    best.write_bytes(sealed(in_zip(nn.Linear(1, 1))))
    with pytest.raises(UserError, match=r"it holds torch\.nn\.modules\.linear\.Linear"):
        litlab.load(run)
