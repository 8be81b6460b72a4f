"""Whether a command asks for the same study as before, with axes that have grown, or for another one."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from litlab.config.change import difference, in_words
from litlab.config.identity import ORIGIN, VOLATILE, place, swept
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
    if before is None or not study.records:  # of which nothing but the plan is there
        return
    if before.kind != plan.kind:
        raise UserError(f"{study.path} is a {before.kind}, and this would be a {plan.kind}: {_DO}")
    now = from_yaml(study.path, to_yaml(plan).encode())  # as it is when it comes from the file
    if plan.kind == "search":
        _refuse(study, "the space of the search", difference(before.axes, plan.axes))
        _refuse(study, "what the search is for and keeps its trials in", _aims(difference(before.search, now.search)))
    if plan.kind == "search" or not {each.identity for each in study.records} <= {each.identity for each in composed}:
        _refuse(study, "what is fixed in it", _fixed(before, now))
        _check_points(study, composed)
    _check_origin(study, before, now, composed)


def _aims(changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {f"hydra.sweeper.{key}": values for key, values in changed.items() if _is_in(key, ("objectives", "storage"))}


def _fixed(before: Plan, now: Plan) -> dict[str, list[Any]]:
    """What has changed of what is not swept; in a group that is, only what commands set are fixed values."""
    changed = without(difference(before.base, now.base), VOLATILE)
    swept = [place(key) for key in (*before.axes, *now.axes)]
    said = [place(each.partition("=")[0]) for each in (*before.arguments, *now.arguments) if "=" in each]
    set_there = [key for key in said if key not in swept]
    return {key: values for key, values in changed.items() if _is_in(key, set_there) or not _is_in(key, swept)}


def _check_origin(study: "Study", before: Plan, now: Plan, composed: Sequence["ComposedJob"]) -> None:
    """The same place is taken for the same data, so they stay where they were once a job has read them.

    Raises:
        UserError: if they would come from elsewhere now; what they are is not known before they are read.
    """
    begun = {each.identity: run for each, run in study.jobs() if run.dataset.exists() and run.config.exists()}
    known = next((each for each in composed if each.identity in begun), None)
    if not begun or (known is None and not _origin(difference(before.base, now.base))):
        return
    run = begun[known.identity] if known is not None else next(iter(begun.values()))
    config = known.config if known is not None else composed[0].config if composed else now.base
    changed = without(_origin(difference(run.read_config(), config)), swept(config))
    if not changed or any(not _origin(difference(each.read_config(), config)) for each in begun.values()):
        return
    fingerprint = str(run.read_json(run.dataset).get("fingerprint"))[:12]
    said = "\n".join(f"  {in_words(key, *values)}" for key, values in changed.items())
    ((key, (old, new)), *_) = changed.items()
    raise UserError(
        f"{study.path} was begun with data from elsewhere (fingerprint {fingerprint}):\n{said}\n"
        "jobs on other data are another study: choose another study.name for them. If these are the same data, "
        f"continue what is not complete with `litlab resume {study.path} {key}={new}`, which compares the fingerprint; "
        f"for more jobs let {old} be a link to them"
    )


def _origin(changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: values for key, values in changed.items() if key in ORIGIN}


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


def without(changed: dict[str, list[Any]], places: Collection[str]) -> dict[str, list[Any]]:
    """The changes that are not in these places of the config."""
    return {key: values for key, values in changed.items() if not _is_in(key, places)}


def _is_in(key: str, places: Collection[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
