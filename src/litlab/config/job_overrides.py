"""Overrides that a multirun leaves to its jobs: of keys that only the configs on an axis have.

Hydra composes the config of a multirun with all overrides but the axes, and then each job. An override such as
`model.width=8` in `-m model=resnet18,whitened model.width=8` can't be applied to the former. As an axis with one value
it is applied in the jobs alone, by any sweeper. A tag tells it from the axes of the user.
"""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from litlab.config.tree import GROUPS, MAPPING_GROUPS, ROOT_VALUES, config_key, lies_under

_LEFT_TO_JOBS = re.compile(r"(?P<key>[^=]+)=tag\(job,choice\((?P<value>.*)\)\)", re.DOTALL)


def leave_to_jobs(key: str, arguments: Sequence[str]) -> list[str] | None:
    """Return the arguments of a multirun with the override of a key left to the jobs.

    Args:
        key: Dotted key that the config of the multirun does not have.
        arguments: Arguments of `litlab train`.

    Returns:
        The arguments; None if no axis could choose a config that has the key, or there is no such override.
    """
    axes = [name for argument in arguments if (name := _group_axis(argument))]
    may_have_key = any(lies_under(key, axis) or axis not in (*GROUPS, *MAPPING_GROUPS) for axis in axes)
    left = [
        f"{key}=tag(job,choice({argument.partition('=')[2]}))"
        if argument.startswith(f"{key}=") and argument == as_written(argument)
        else argument
        for argument in arguments
    ]
    return left if may_have_key and left != list(arguments) else None


def as_written(argument: str) -> str:
    """Return an argument as the user wrote it."""
    match = _LEFT_TO_JOBS.fullmatch(argument)
    return f"{match['key']}={match['value']}" if match else argument


def job_values(arguments: Sequence[str]) -> dict[str, Any]:
    """Return key -> value of the overrides that are left to the jobs."""
    left = [as_written(argument) for argument in arguments if _LEFT_TO_JOBS.fullmatch(argument)]
    return {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(left)}


def _group_axis(argument: str) -> str | None:
    """Return the config key of an argument that may vary the choice of a config, as a prepared study may."""
    key, _, value = argument.partition("=")
    if key in ("study", "+study") and value:
        return "study"
    is_group = "." not in key and key not in ROOT_VALUES and not key.startswith("-")
    return config_key(key) if is_group and ("," in value or "(" in value) else None
