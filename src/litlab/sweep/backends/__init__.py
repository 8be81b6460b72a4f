"""Backends that run the jobs of a study, made by one factory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litlab.sweep.backends.base import Backend


def make_backend(settings: Mapping[str, Any], folder: Path) -> Backend:
    """Make the backend of a study; nothing is started yet.

    Args:
        settings: Settings of `hydra.launcher`, with its name under `backend`: `pool` or `slurm`.
        folder: Directory of the study, or of a single run.
    """
    values = {name: value for name, value in settings.items() if name != "backend"}
    if settings["backend"] == "slurm":
        from litlab.config.schema import Slurm  # reading a study does without these
        from litlab.sweep.backends.slurm import SlurmBackend

        return SlurmBackend(Slurm(**values), folder)
    from litlab.sweep.backends.local import LocalPool, PoolSettings

    del values["dry_run"]
    return LocalPool(PoolSettings(**values))
