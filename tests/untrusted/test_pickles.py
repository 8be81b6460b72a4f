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
from support.hostile import Call, call_shell
from torch import nn
from torch.utils import collect_env

import litlab
from litlab.cli import evaluate, export
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign
from litlab.training.checkpoint_io import AtomicCheckpointIO


def call_eval(mark: Path) -> Call:
    return Call(eval, f"open({str(mark)!r}, 'w').close()")


def call_torch_load(mark: Path) -> Call:
    return Call(functools.partial(torch.load, weights_only=False), io.BytesIO(pickle.dumps(call_shell(mark))))


def state_of(value: Any) -> dict[str, Any]:
    return {"state_dict": OrderedDict(w=torch.zeros(2)), "hyper_parameters": {"a": [value]}}


def saved(content: Any, *, as_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=as_zip)
    return stream.getvalue()


PICKLES: dict[str, Callable[[Path], bytes]] = {
    "shell": lambda mark: saved({"state_dict": call_shell(mark)}),
    "code": lambda mark: saved(state_of(call_eval(mark))),
    "torch.load": lambda mark: saved(state_of(call_torch_load(mark))),
    "torch's shell": lambda mark: saved({"state_dict": {"network.weight": Call(collect_env.run, f"touch {mark}")}}),
    "old format": lambda mark: saved({"state_dict": call_shell(mark)}, as_zip=False),
    "bare pickle": lambda mark: pickle.dumps({"state_dict": call_eval(mark)}, protocol=2),
    "instead of a dict": lambda mark: saved(call_shell(mark)),
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
    best.write_bytes(sealed(saved(nn.Linear(1, 1))))
    with pytest.raises(UserError, match=r"it holds torch\.nn\.modules\.linear\.Linear"):
        litlab.load(run)
