"""Lightning's view of the ranks. Lightning would guess it, wrongly for ranks that litlab starts in a SLURM job."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from litlab.process.ranks import global_rank, is_rank


class RankEnvironment(ClusterEnvironment):
    """Ranks by the variables that litlab or torchrun sets; without them, a single process."""

    def __init__(self) -> None:
        super().__init__()
        SLURMEnvironment.detect = self.detect  # type: ignore[method-assign]  # Lightning calls it in spite of this class
        rank_zero_only.rank = global_rank()  # type: ignore[attr-defined]  # Lightning's default is SLURM_PROCID

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts no process."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the process-group store."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port of the process-group store."""
        return int(os.environ.get("MASTER_PORT") or find_free_network_port())

    @staticmethod
    def detect() -> bool:
        """Return False: this class is passed to the Trainer, not detected."""
        return False

    def world_size(self) -> int:
        """Return the number of ranks."""
        return int(os.environ["WORLD_SIZE"]) if is_rank() else 1

    def set_world_size(self, size: int) -> None:
        """Do nothing: the variables determine it."""

    def global_rank(self) -> int:
        """Return the rank of this process among all."""
        return global_rank()

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the variables determine it."""

    def local_rank(self) -> int:
        """Return the rank of this process among those of its machine."""
        return int(os.environ["LOCAL_RANK"]) if is_rank() else 0

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return int(os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK", "0")) if is_rank() else 0
