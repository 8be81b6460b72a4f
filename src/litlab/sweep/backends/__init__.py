"""Backends that run the jobs of a study, made by one factory."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from litlab.sweep.backends.base import Backend


def make_backend(settings: Mapping[str, Any], folder: Path) -> Backend:
    """Make the backend of a study; nothing is started yet.

    Args:
        settings: Settings of `hydra.launcher`.
        folder: Directory of the study, or of a single run.

    Raises:
        UserError: If the settings name an impossible address.
    """
    if settings["backend"] == "slurm":
        from litlab.config.schema import Slurm  # reading a study does without these
        from litlab.sweep.backends.slurm import SlurmBackend

        return SlurmBackend(Slurm(**settings), folder)
    if settings["backend"] == "ray":
        from litlab.config.schema import Ray
        from litlab.sweep.backends.ray import RayBackend

        return RayBackend(Ray(**settings), folder)
    from litlab.sweep.backends.local import LocalPool, PoolSettings

    pool_settings = PoolSettings(**{field.name: settings[field.name] for field in fields(PoolSettings)})
    return LocalPool(pool_settings, folder=folder)
