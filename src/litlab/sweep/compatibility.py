"""Compatibility of a command with an existing study: the same fixed values, data, kind and search space."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from litlab.config.ablation_changes import ABLATION
from litlab.config.identity import DATA_SOURCE, swept_keys, volatile_keys
from litlab.config.tree import config_key, diff, format_change, lies_under
from litlab.errors import UserError
from litlab.sweep.study import Plan, Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob

Config = dict[str, Any]
Changes = dict[str, list[Any]]  # dotted key -> [value before, value after]
MAX_LINES = 20
_KINDS = {"grid": "a grid", "search": "a search", "decide": "a study of decide"}
_ADVICE = "choose another study.name, or use the previous values"


def check_compatible(study: Study, plan: Plan, composed: Sequence["ComposedJob"]) -> None:
    """Check that a command belongs to a study that has jobs already; a search has no `composed` jobs.

    Raises:
        UserError: If the command would be another study, with the differences.
    """
    before = study.plan
    if before is None or not study.records:
        return
    if before.kind != plan.kind:
        raise UserError(f"{study.path} is {_KINDS[before.kind]}, and this would be {_KINDS[plan.kind]}: {_ADVICE}")
    after = Plan.from_yaml(study.path, plan.to_yaml().encode())  # the types that a file gives
    if (ABLATION in before.axes) != (ABLATION in plan.axes):
        kinds = [f"{'an' if ABLATION in axes else 'no'} ablation" for axes in (before.axes, plan.axes)]
        raise UserError(f"{study.path} is {kinds[0]}, and this would be {kinds[1]} (study.ablate): {_ADVICE}")
    if plan.kind == "search":
        _refuse(study, "search space", diff(before.axes, plan.axes))
        changes = diff(before.search, after.search)
        changes = {f"hydra.sweeper.{key}": changes[key] for key in changes if lies_under(key, "objectives", "storage")}
        _refuse(study, "objective or storage", changes)
    if plan.kind == "search" or not {record.identity for record in study.records} <= {job.identity for job in composed}:
        _refuse(study, "value of a fixed key", _fixed_values(before, after))
        _check_points(study, composed)
    _check_data_source(study, before, after, composed)


def exclude(changes: Changes, keys: Collection[str]) -> Changes:
    """Leave out the changes at or below any of the keys."""
    return {key: values for key, values in changes.items() if not lies_under(key, *keys)}


def _fixed_values(before: Plan, after: Plan) -> Changes:
    """Find the changes of values that are not swept; within a swept group, only values set on a command line count."""
    changes = exclude(diff(before.base, after.base), _volatile_keys(after.base))
    axes = [config_key(key) for key in (*before.axes, *after.axes)]
    given = [config_key(text.partition("=")[0]) for text in (*before.arguments, *after.arguments) if "=" in text]
    fixed = [key for key in given if key not in axes]
    return {key: values for key, values in changes.items() if lies_under(key, *fixed) or not lies_under(key, *axes)}


def _check_points(study: Study, composed: Sequence["ComposedJob"]) -> None:
    """Check that a point still gives the same job; otherwise a config group or a default has changed."""
    identities = {record.identity for record in study.records}
    by_point = {frozenset(record.point.items()): record for record in study.records}
    for job in composed:
        record = by_point.get(frozenset(job.point.items()))
        if record is not None and job.identity not in identities:
            run = study.run_of(record)
            if run.config.exists():  # else removed by the user, to be created again
                changes = diff(run.read_config(), job.config)
                changes = exclude(changes, _volatile_keys(job.config)) or exclude(changes, ("study", "threads"))
                _refuse(study, f"config of {record.directory}", changes)


def _volatile_keys(config: Config) -> tuple[str, ...]:
    return volatile_keys((config.get("data") or {}).get("_target_"))


def _check_data_source(study: Study, before: Plan, after: Plan, composed: Sequence["ComposedJob"]) -> None:
    """Check that the data come from the same place as those that a job has read: the same place means the same data."""
    begun = {record.identity: run for record, run in study.jobs() if run.dataset.exists() and run.config.exists()}
    begun_job = next((job for job in composed if job.identity in begun), None)
    if not begun or (begun_job is None and not _data_source_changes(before.base, after.base)):
        return
    run = begun[begun_job.identity] if begun_job is not None else next(iter(begun.values()))
    config = begun_job.config if begun_job is not None else composed[0].config if composed else after.base
    changes = exclude(_data_source_changes(run.read_config(), config), swept_keys(config))
    if not changes or any(not _data_source_changes(run.read_config(), config) for run in begun.values()):
        return
    fingerprint = str(run.read_json(run.dataset).get("fingerprint"))[:12]
    lines = "\n".join(f"  {format_change(key, *values)}" for key, values in changes.items())
    ((key, (old, new)), *_) = changes.items()
    raise UserError(
        f"{study.path} was started with data from another location (fingerprint {fingerprint}):\n{lines}\n"
        "jobs on other data are another study: choose another study.name for them. If these are the same data, "
        f"continue what is not complete with `litlab resume {study.path} {key}={new}`, which compares the fingerprint; "
        f"for more jobs let {old} be a link to them"
    )


def _data_source_changes(before: Config, after: Config) -> Changes:
    return {key: values for key, values in diff(before, after).items() if key in DATA_SOURCE}


def _refuse(study: Study, subject: str, changes: Changes) -> None:
    """Refuse a command that changes the study."""
    if not changes:
        return
    lines = [f"  {format_change(key, *values)}" for key, values in changes.items()]
    more = [f"  and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    text = "\n".join([*lines[:MAX_LINES], *more])
    raise UserError(f"{study.path} is another study with a different {subject}:\n{text}\n{_ADVICE}")
