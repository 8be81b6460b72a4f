"""Number of examples of property tests: a few in `make test`, always the same ones; many in `make torture`."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

THOROUGH = os.environ.get("LITLAB_THOROUGH") == "1"
_HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]


def examples(short: int, thorough: int = 2000) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Hypothesis's settings for one property."""
    return settings(
        max_examples=thorough if THOROUGH else short,
        derandomize=not THOROUGH,
        database=None,
        deadline=None,
        suppress_health_check=_HEALTH,
    )
