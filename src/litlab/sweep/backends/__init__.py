"""Backends that run the jobs of a study, made by one factory."""

from collections.abc import Mapping
from typing import Any

from litlab.sweep.backends.base import Backend

SETTINGS = ("jobs", "jobs_per_device", "timeout", "retries")  # of `hydra.launcher`, kept in study.yaml


def make_backend(settings: Mapping[str, Any]) -> Backend:
    """Make the backend of a study; nothing is started yet.

    Args:
        settings: Settings of `hydra.launcher`, or those that study.yaml keeps of them; other keys are ignored.
    """
    from litlab.sweep.backends.local import LocalPool, PoolSettings  # reading a study does without it

    return LocalPool(PoolSettings(**{name: settings[name] for name in SETTINGS}))
