"""Whether a command asks for the same study as before, with axes that have grown, or for another one."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from litlab.config.change import difference, in_words
from litlab.config.identity import VOLATILE
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep.plan import Plan, Record, from_yaml, to_yaml

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob
    from litlab.sweep.study import Study

Config = dict[str, Any]
MOST_LINES = 20
_DO = "choose another study.name for it, or give what was there before"


def check_same(study: "Study", plan: Plan, composed: Sequence["ComposedJob"]) -> None:
    """
    Raises:
        UserError: if what is asked for now would not be the same study, with what differs.
    """
    before = study.plan
    if before is None:
        return
    if before.kind != plan.kind:
        raise UserError(f"{study.path} is a {before.kind}, and this would be a {plan.kind}: {_DO}")
    if plan.kind == "search":
        _refuse(study, "the space of the search", difference(before.axes, plan.axes))
    elif {each.identity for each in study.records} <= {each.identity for each in composed}:
        return
    now = from_yaml(study.path, to_yaml(plan).encode())  # as it is when it comes from the file
    free = [*VOLATILE, *(_place(key) for key in (*before.axes, *plan.axes))]
    _refuse(study, "what is fixed in it", without(difference(before.base, now.base), free))
    _check_points(study, composed)


def _check_points(study: "Study", composed: Sequence["ComposedJob"]) -> None:
    """A point of the axes is one job; if it comes out as another, what a group or a default stands for has changed.

    Raises:
        UserError: with what differs, for the first such job.
    """
    known = {each.identity for each in study.records}
    by_point = {frozenset(each.point.items()): each for each in study.records}
    for job in composed:
        record = by_point.get(frozenset(job.point.items()))
        if record is not None and job.identity not in known:
            _refuse(study, f"what {record.directory} stands for", _between(study, record, job.config))


def _between(study: "Study", record: Record, config: Config) -> dict[str, list[Any]]:
    run = RunDirectory(study.path / record.directory)
    if not run.config.exists():  # removed, to be made anew
        return {}
    before = run.read_config()
    found = difference(before, config)
    return without(found, VOLATILE) or without(found, ("study", "threads"))


def _refuse(study: "Study", what: str, changed: dict[str, list[Any]]) -> None:
    """
    Raises:
        UserError: if anything changed.
    """
    if not changed:
        return
    lines = [f"  {in_words(key, *values)}" for key, values in changed.items()]
    more = [f"  and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    said = "\n".join([*lines[:MOST_LINES], *more])
    raise UserError(f"{study.path} is another study, {what} has changed:\n{said}\n{_DO}")


def _place(key: str) -> str:
    """Where in the config an override has its effect: `+model@net` and `data/augment` are net and data.augment."""
    group, _, package = key.lstrip("+~").partition("@")
    return (package or group).replace("/", ".")


def without(changed: dict[str, list[Any]], places: Collection[str]) -> dict[str, list[Any]]:
    """The changes that are not in these places of the config."""
    return {
        key: values
        for key, values in changed.items()
        if not any(key == place or key.startswith(f"{place}.") for place in places)
    }
