"""Writing and reading checkpoints: whole files, and no code in them."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from litlab.errors import UserError
from litlab.runs.files import write_atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically and read as plain tensors and numbers."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, lambda stream: torch.save(checkpoint, stream))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`: it cannot run code.

    Raises:
        UserError: if it is missing, damaged, or holds more than plain data.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises whatever its zip reader or its unpickler does
        raise UserError(f"{path}: not a checkpoint that can be read safely: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint: it holds a {type(checkpoint).__name__}, expected a dict")
    return checkpoint


def network_state(path: Path) -> dict[str, torch.Tensor]:
    """The weights of the network alone, as its own `state_dict` names them.

    Raises:
        UserError: as `read_checkpoint`, and if the checkpoint is not of a task with a `network`.
    """
    state = read_checkpoint(path).get("state_dict", {})
    network = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    if not network:
        raise UserError(
            f"{path}: holds no `network.*` weights; only runs of a task that keeps its `network` can be used here"
        )
    return network
