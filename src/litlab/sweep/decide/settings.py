"""Settings of `hydra/sweeper=decide`, and the settings of runs that it compares."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import yaml
from pydantic import Field

from litlab.config.schema import Objective, OpenFraction, Positive, Section
from litlab.config.tree import ROOT_VALUES, bare_key, config_key, did_you_mean, format_value, get
from litlab.config.validate import check_settings, find_missing_validation
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping, as_number
from litlab.runs.signature import signature_problem
from litlab.runs.state import RunStatus
from litlab.statistics.sequential import LARGEST
from litlab.sweep.decide.rounds import MIN_PAIRS
from litlab.sweep.outcome import read_outcome
from litlab.sweep.study import JobRecord, Study

SECTION = "hydra.sweeper"
SEED = "seed"
_MANY_DIGITS = re.compile(r"-?\d+\.\d{7,}(e[+-]?\d+)?")
_OPTION = re.compile(r"[A-Za-z0-9_/-]*")
_PLACES = (
    "data.root",
    "data.path",
    "data.cache",
    "init_from",
    "threads",
)  # stand otherwise in a config, and run no code
_MISSING = object()
_NO_SETTINGS = ("study.", "hydra")  # begin keys that belong to no setting


class DecideSettings(Section):
    """Settings of `hydra.sweeper` besides those that name what is compared; conf/hydra/sweeper/decide.yaml."""

    params: dict[str, Any] | None
    settings: Annotated[dict[str, list[str]], Field(min_length=2)] | None
    from_study: Annotated[str, Field(min_length=1)] | None
    best: Annotated[int, Field(ge=2)]
    baseline: Annotated[str, Field(min_length=1)] | None
    seeds_max: Annotated[int, Field(ge=MIN_PAIRS, le=LARGEST)]
    alpha: Annotated[float, Field(gt=0, le=0.5)]
    delta: Positive | None
    alpha_reserve: OpenFraction


@dataclass(frozen=True)
class Setting:
    """A setting that is compared.

    Attributes:
        name: Name for people.
        overrides: Overrides in Hydra's grammar, without the seed.
        point: Keys that it varies, with their values as texts.
    """

    name: str
    overrides: tuple[str, ...]
    point: dict[str, str]


def read_settings(values: Mapping[str, Any]) -> DecideSettings:
    """Validate the settings.

    Raises:
        UserError: With a line for each setting that is unknown or out of range, or if it is not clear what to compare.
    """
    check_settings(SECTION, dict(values), DecideSettings)
    settings = DecideSettings.model_validate(dict(values))
    if settings.settings is not None and settings.from_study is not None:
        raise UserError(f"{SECTION}.settings, {SECTION}.from_study: expected one of them; each names what is compared")
    if settings.params and (settings.settings or settings.from_study):
        name = "settings" if settings.settings else "from_study"
        raise UserError(f"{SECTION}.params, {SECTION}.{name}: expected one of them; each names what is compared")
    return settings


def settings_of_axes(combinations: Sequence[Sequence[str]], swept: Sequence[str]) -> list[Setting]:
    """Return the settings of the combinations of axes, named as in `lr=0.1 momentum=0.9`.

    Args:
        combinations: Overrides of each, with the fixed ones.
        swept: Keys of the axes.

    Raises:
        UserError: If there are fewer than two.
    """
    if len(combinations) < 2:
        raise UserError(
            "hydra/sweeper=decide: there is nothing to compare; give a key several values, as in "
            f"optimizer.lr=0.05,0.1, or set {SECTION}.settings or {SECTION}.from_study"
        )
    points = [_point(overrides, swept) for overrides in combinations]
    return [Setting(*values) for values in zip(_names(points), map(tuple, combinations), points, strict=True)]


def named_settings(settings: Mapping[str, Sequence[str]], fixed: Sequence[str]) -> list[Setting]:
    """Return settings with names, each with overrides of its own on top of the fixed ones."""
    return [_with_fixed(name, overrides, fixed) for name, overrides in settings.items()]


def best_of_study(study: Study, num: int) -> list[Setting]:
    """Return the best settings of a finished study by their mean objective.

    Args:
        study: Study of the user's own.
        num: Number of settings.

    Raises:
        UserError: If it has fewer settings with completed runs, or what it says of them is not in their signed configs.
    """
    values: dict[frozenset[tuple[str, str]], list[float]] = {}
    found: dict[frozenset[tuple[str, str]], tuple[JobRecord, RunDirectory]] = {}
    mode = "max"
    for record, run in study.jobs():
        outcome = read_outcome(run)
        value = as_number(outcome.objective) if outcome is not None else None
        if outcome is None or outcome.status is not RunStatus.COMPLETED or value is None:
            continue
        mode = as_mapping(run.read_config().get("objective")).get("mode", mode)
        point = {bare_key(key): text for key, text in record.point.items() if bare_key(key) != SEED}
        values.setdefault(frozenset(point.items()), []).append(value)
        found.setdefault(frozenset(point.items()), (record, run))
    if len(values) < num:
        raise UserError(
            f"{SECTION}.from_study={study.path}: it has {len(values)} settings with completed runs and an objective, "
            f"not {num}; finish it with `litlab resume {shlex.quote(str(study.path))}`, or set {SECTION}.best"
        )
    ranked = sorted(values, key=lambda key: fmean(values[key]), reverse=mode == "max")[:num]
    overrides = [_confirmed_overrides(*found[key]) for key in ranked]
    points = [_point(lines, [key for key, _ in point]) for lines, point in zip(overrides, ranked, strict=True)]
    names = _names(points)
    return [Setting(*values) for values in zip(names, map(tuple, overrides), points, strict=True)]


def _confirmed_overrides(record: JobRecord, run: RunDirectory) -> list[str]:
    """Return the overrides of a job, except for its seed, if its signed config has their values.

    Only the config is signed. Without this check, jobs.jsonl in a copy of a study that others could write to would say
    what code to run.

    Raises:
        UserError: If it has not, or the run is not the user's own.
    """
    if (problem := signature_problem(run, run.config.read_bytes())) is not None:
        raise UserError(f"{SECTION}.from_study: {run.path} is not signed by you: {problem}")
    config, kept = run.read_config(), [line for line in record.overrides if _is_setting(line)]
    for line in kept:
        if not _is_confirmed(line, config):
            raise UserError(
                f"{SECTION}.from_study: {run.path.name} was started with {line}, which its config.yaml does not have; "
                f"name what is compared in {SECTION}.settings instead"
            )
    return kept


def _is_confirmed(line: str, config: Mapping[str, Any]) -> bool:
    key, _, text = line.partition("=")
    if "." not in bare_key(key) and bare_key(key) not in ROOT_VALUES and _OPTION.fullmatch(text):
        return True  # a config of this project by its name, or a group that is left out
    if bare_key(key) in _PLACES and "${" not in text and "{" not in text:
        return True
    value = get(config, config_key(key), default=_MISSING)
    try:
        return text == format_value(value) or yaml.safe_load(text) == value or float(text) == value
    except (ValueError, RecursionError, yaml.YAMLError):
        return False


def seeds_of_study(study: Study) -> list[int]:
    """Return the seeds of the runs of a study."""
    seeds = {run.read_config().get(SEED) for _, run in study.jobs() if run.config.exists()}
    return sorted(seed for seed in seeds if type(seed) is int and seed >= 0)


def with_overrides(setting: Setting, fixed: Sequence[str]) -> Setting:
    """Return a setting of another study with the fixed overrides of this command, which replace those of that study."""
    keys = [_key(line) for line in fixed]
    kept = [line for line in setting.overrides if _key(line) not in keys or _key(line) in setting.point]
    added = [line for line in fixed if _key(line) not in setting.point]
    return replace(setting, overrides=(*added, *kept))


def load_source(directory: str, project: Path) -> Study:
    """Load the study of `from_study`.

    Raises:
        UserError: If it is no study, or not the user's own: its overrides say what to run.
    """
    path = project / directory
    study = Study.load(path)
    if study.plan is None:
        raise UserError(f"{SECTION}.from_study={directory}: there is no study; expected a directory with study.yaml")
    if (problem := study.signature_problem()) is not None:
        raise UserError(f"{SECTION}.from_study={directory}: the study is not signed by you: {problem}")
    return study


def find_baseline(text: str, settings: Sequence[Setting]) -> Setting:
    """Return the setting that the baseline names: its name, or keys with values that only one setting has.

    Raises:
        UserError: If none or several are meant.
    """
    if named := [setting for setting in settings if setting.name == text]:
        return named[0]
    try:
        parts = shlex.split(text) if "=" in text else []
    except ValueError:  # a quote that is not closed
        parts = []
    pairs = [part.partition("=")[::2] for part in parts]
    found = [setting for setting in settings if pairs and all(_has(setting, key, value) for key, value in pairs)]
    if len(found) == 1:
        return found[0]
    names = [setting.name for setting in settings]
    problem = "no setting is this" if not found else f"{len(found)} settings are this"
    hint = "" if found else did_you_mean(text, names)
    raise UserError(f"{SECTION}.baseline={text}: {problem}{hint}; the settings: {', '.join(names)}")


def check_different(settings: Sequence[Setting]) -> None:
    """Check that no setting fixes what decide itself chooses, and that all are different.

    Raises:
        UserError: If one does, or two are alike.
    """
    names = Counter(setting.name for setting in settings)
    points = Counter(frozenset(setting.point.items()) for setting in settings)
    for setting in settings:
        for line in setting.overrides:
            if _key(line) == SEED:
                raise UserError(
                    f"{line}: decide chooses the seeds itself, one after the other until it is decided; leave out "
                    f"seed, and set {SECTION}.seeds_max for the largest number of them"
                )
            if _key(line) in setting.point and not _is_setting(line):
                raise UserError(f"{SECTION}.settings.{setting.name}: {line} is no setting of a run")
        if names[setting.name] > 1 or points[frozenset(setting.point.items())] > 1:
            raise UserError(f"hydra/sweeper=decide: the setting {setting.name} occurs twice; expected different ones")


def find_objective(config: Mapping[str, Any]) -> Objective:
    """Return the objective of the runs, which is measured in validation.

    Raises:
        UserError: If they have none.
    """
    if config.get("objective") is None:
        raise UserError("objective=null: decide needs to know what is better: set objective.metric and objective.mode")
    objective = Objective(**config["objective"])
    if setting := find_missing_validation(dict(config)):
        raise UserError(f"{setting}: without validation data there is no {objective.metric} to decide by")
    return objective


def _with_fixed(name: str, overrides: Sequence[str], fixed: Sequence[str]) -> Setting:
    keys = [_key(line) for line in overrides]
    kept = [line for line in fixed if _key(line) not in keys]
    return Setting(name, (*kept, *overrides), _point(overrides, keys))


def _point(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    pairs = [(_key(line), line.partition("=")[2]) for line in overrides]
    return {key: value for key, value in pairs if key in keys}


def _names(points: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each point, with numbers of four digits if the names differ then."""
    short = _short_keys(list(dict.fromkeys(key for point in points for key in point)))
    rounded = [" ".join(f"{short[key]}={_rounded(value)}" for key, value in point.items()) for point in points]
    if len(set(rounded)) == len(points):
        return rounded
    return [" ".join(f"{short[key]}={value}" for key, value in point.items()) for point in points]


def _rounded(value: str) -> str:
    """Shorten a number that a search has drawn."""
    return f"{float(value):.4g}" if _MANY_DIGITS.fullmatch(value) else value


def _is_setting(line: str) -> bool:
    return _key(line) != SEED and not _key(line).startswith(_NO_SETTINGS)


def _key(line: str) -> str:
    return bare_key(line.partition("=")[0])


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Map keys to their last parts where these differ."""
    ends = Counter(bare_key(key).rpartition(".")[2] for key in keys)
    return {bare_key(key): end if ends[end := bare_key(key).rpartition(".")[2]] == 1 else bare_key(key) for key in keys}


def _has(setting: Setting, key: str, value: str) -> bool:
    """Return True if a setting has a value at a key or the last part of one; numbers may be written differently."""
    return any(
        (name == key or name.rpartition(".")[2] == key) and _same(text, value) for name, text in setting.point.items()
    )


def _same(first: str, second: str) -> bool:
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False
