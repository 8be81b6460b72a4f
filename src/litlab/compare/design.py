"""Design of the tests of a comparison: fixed where the planned seeds were completed before a look, else sequential."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from litlab.compare.data_model import Design, Group
from litlab.compare.looks import LOOKS_FILE, Look, read_looks, studies_of
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep.study import STUDY_FILE, Study


def choose_design(groups: Sequence[Group]) -> Design:
    """Choose the tests that are valid for groups, by the plans of their studies and the looks at them.

    The ordinary tests hold for a number of seeds that was planned beforehand, completed by all groups and never
    extended, if nobody looked before. All others may have been looked at after any seed; so their tests are sequential,
    up to the planned number if there is one, else with an open end. Folds are not added one by one: their tests are the
    ordinary ones.
    """
    if any(group.unit == "fold" for group in groups):
        return Design("fixed")
    studies = studies_of(groups)
    if not studies or any(run.study is None for group in groups for run in group.runs):
        return _open_ended("single runs have no planned number of seeds")
    try:
        loaded = [_load(path) for path in studies]
    except (UserError, OSError):
        return _open_ended("the planned number of seeds can't be read")
    plans = [None if study.plan is None else study.plan.planned_seeds for study in loaded]
    if len(studies) > 1 and any(plan != plans[0] for plan in plans):
        return _open_ended("the studies have no common plan")
    if plans[0] is None:
        return _open_ended(f"{STUDY_FILE} does not record how many seeds were planned")
    plan = [num for num in plans[0] if num >= 2]  # one seed has no spread to test with
    if not plan:
        return _open_ended("no number of seeds was planned")
    if len(plan) > 1:
        return _extended(studies, plan)
    return _planned(loaded, groups, plan[0])


def _planned(studies: Sequence[Study], groups: Sequence[Group], num_planned: int) -> Design:
    """Choose the design of groups whose studies have one plan."""
    nums = [group.value.num if group.value else 0 for group in groups]
    if max(nums) > num_planned:
        return _open_ended(f"a group has more seeds than the {num_planned} that were planned")
    ended = [num + group.num_without_value for num, group in zip(nums, groups, strict=True)]
    reason, looks = "", list[Look]()
    if any(study.plan is not None and study.plan.kind == "decide" for study in studies):
        reason = "hydra/sweeper=decide looks after each seed"
    elif min(ended) < num_planned:
        reason = f"not every group has all {num_planned} seeds yet"
    elif any(study.signature_problem() is not None for study in studies):
        reason = "the study is not your own, so looks at it may be unrecorded"
    else:
        try:
            looks = [look for study in studies for look in read_looks(study.path)]
        except (UserError, OSError):
            reason = f"the looks in {LOOKS_FILE} can't be read"
        else:
            if any(_is_early(look, num_planned) for look in looks):
                reason = f"looked at before all {num_planned} seeds were completed"
    warning = ""
    if _added_after(groups, [look for look in looks if look.highest >= 2]):
        warning = (
            "Settings were added after a look: p is corrected for those that are compared now, not for the choice to "
            "add more until one differs."
        )
    if reason:
        return Design("sequential", num_planned, reason, warning, is_last=min(ended) >= num_planned)
    completed = "were completed" if min(nums) == num_planned else "ended, some without a value,"
    return Design("fixed", None, f"all {num_planned} that were planned {completed} before the first look", warning)


def _extended(studies: Sequence[Path], plan: Sequence[int]) -> Design:
    """Return the design of a study whose plan grew; its warning is on answers that were given under the first plan."""
    design = _open_ended(f"the plan was extended from {' to '.join(map(str, plan))} seeds")
    try:
        looks = [look for study in studies for look in read_looks(study)]
    except (UserError, OSError):
        looks = []
    if not any(2 <= look.highest <= plan[0] for look in looks):
        return design
    warning = (
        "The open-ended test covers all looks. Whoever also counts the answers that were given under the plan of "
        f"{plan[0]} seeds has an error of at most twice 5 %."
    )
    return Design(design.kind, design.horizon, design.reason, warning)


def _open_ended(reason: str) -> Design:
    return Design("sequential", None, reason)


def _load(path: Path) -> Study:
    study = Study.load(path)
    if study.plan is None:
        raise UserError(f"{path} has no {STUDY_FILE}")
    return study


def _added_after(groups: Sequence[Group], looks: Sequence[Look]) -> bool:
    """Return True if some groups were begun before the first look, and others after it."""
    if not looks:
        return False
    begun = [min(RunDirectory(run.path).config.stat().st_mtime for run in group.runs) for group in groups if group.runs]
    first = min(datetime.fromisoformat(look.time).timestamp() for look in looks) + 1  # in whole seconds
    return min(begun) <= first < max(begun)


def _is_early(look: Look, num_planned: int) -> bool:
    """Return True for a look that could find a difference before the planned number: one seed has no spread."""
    return look.highest >= 2 and look.lowest < num_planned
