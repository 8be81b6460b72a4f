"""Resources and errors, as the backends that submit to the queue of a cluster see them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from litlab.errors import UserError
from litlab.sweep.backends.base import Config

LATE_SECONDS = 10.0  # for files to appear that another machine has written: NFS caches attributes
_GPU_ACCELERATORS = ("gpu", "cuda")


class QueueError(Exception):
    """A request to a queue that failed.

    Attributes:
        is_temporary: True if the queue did not answer, so that the request may succeed later.
    """

    is_temporary = False


@dataclass(frozen=True)
class Resources:
    """Resources that a job needs on each of its nodes.

    Attributes:
        num_nodes: Number of nodes.
        num_ranks: Processes on each node.
        cpus: Cores of each process.
        gpus: GPUs on each node.
    """

    num_nodes: int
    num_ranks: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, config: Config, *, cpus: int, gpus: int | None) -> "Resources":
        """Read the resources of a job.

        Args:
            config: Frozen config of the job.
            cpus: Cores of a process, if the config leaves its threads open.
            gpus: GPUs on each node; None for one a process if the accelerator is a GPU.

        Raises:
            UserError: If the config leaves the number of GPUs to the machine, and so do the settings.
        """
        trainer = config["trainer"]
        needs_gpus = trainer["accelerator"] in _GPU_ACCELERATORS
        num_ranks = _num_ranks(trainer["devices"], gpus, needs_gpus=needs_gpus)
        if gpus is None:
            gpus = num_ranks if needs_gpus else 0
        return cls(int(trainer["num_nodes"]), num_ranks, int(config["threads"] or cpus), gpus)


def _num_ranks(devices: int | str | list[int], gpus: int | None, *, needs_gpus: bool) -> int:
    if isinstance(devices, list):
        return len(devices)
    if devices not in ("auto", -1):
        return int(devices)
    if needs_gpus and gpus is None:
        raise UserError(
            f"trainer.devices={devices}: a queue needs the number of GPUs; set trainer.devices or hydra.launcher.gpus"
        )
    return gpus or 1


class TemporaryErrors:
    """Printer of the errors of a queue that does not answer: each once, while the request is repeated."""

    def __init__(self) -> None:
        self._last = ""

    @contextmanager
    def printed(self) -> Iterator[None]:
        """Print a temporary error within the context, and raise any other.

        Raises:
            UserError: For an error that repeating does not mend.
        """
        try:
            yield
        except QueueError as error:
            if not error.is_temporary:
                raise UserError(str(error)) from error
            self.print(error)
        else:
            self._last = ""

    def print(self, error: QueueError) -> None:
        """Print an error, unless it was the last one."""
        if str(error) != self._last:
            print(f"litlab: {error}", file=sys.stderr, flush=True)
        self._last = str(error)
