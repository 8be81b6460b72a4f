"""A trained network with its preprocessing and class names, rebuilt from a run directory alone."""

from collections.abc import Iterator
from itertools import batched as _batched  # noqa: F401
