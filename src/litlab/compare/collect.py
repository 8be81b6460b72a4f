"""Runs below directories, read from config.yaml and result.json; directories that cannot be used are reported."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from litlab.compare.data_model import Fold, Objective, Run, Skipped, Variant
from litlab.compare.setting_names import FOLD, FOLDS, comparable, numbered, text
from litlab.config.ablation_changes import ABLATION, check_changes
from litlab.config.identity import swept_keys, volatile_keys
from litlab.config.tree import check_plain, config_key, flatten, lies_under
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping, as_number
from litlab.runs.metrics import split_of
from litlab.runs.redact import mask_command
from litlab.runs.state import RunState, read_state, state_from_result
from litlab.runs.terminal import display_path
from litlab.sweep.discover import MAX_DEPTH, DiscoveredRun, is_run_or_study, runs_at, subdirectories
from litlab.sweep.study import STUDY_FILE

_MAX_FILE = 1 << 20  # bytes of config.yaml or result.json; those of litlab have a few thousand
_MAX_NAME = 100  # characters of the name of a metric
_NO_RUNS = "holds no runs"
# Settings of data modules that do not change which images a fold holds. All others count, so those of other modules do.
_NOT_IN_PARTITION = (
    FOLD, "data.seed", "data.batch_size", "data.val_size", "data.transforms", "data.crop_padding", "data.flip",
    "data.cutout", "data.mixup", "data.cutmix", "data.color_jitter", "data.rand_augment", "data.progressive_sizes",
    "data.mean", "data.std", "data.low_light", "data.hard_fraction",
)  # fmt: skip


def collect(directories: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """Read all runs at or below directories, each once, in their order; also return what could not be used."""
    runs: list[Run] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    swept: set[str] = set()
    weights: dict[str, str] = {}  # hash of initial weights -> their name
    for directory in directories:
        for discovered in _runs_below(directory, skipped):
            path = discovered.run.path
            if (real := path.resolve()) in seen:
                continue
            seen.add(real)
            try:
                config = _read_config(discovered.run)
                if "init_from" in config:
                    config["init_from"] = _name_weights(config["init_from"], weights)
                runs.append(_read_run(discovered, config, _name(path, directory, len(directories) > 1)))
                swept.update(swept_keys(config))
            except (UserError, OSError) as error:
                skipped.append(Skipped(path, _reason(error, path)))
    return comparable(runs, swept), skipped


def studies(directories: Sequence[Path]) -> list[Path]:
    """Return the studies at or below directories, each once, without those that cannot be read."""
    paths = [path for directory in directories if directory.is_dir() for path in _discover(directory, MAX_DEPTH, [])]
    return [path for path in dict.fromkeys(paths) if (path / STUDY_FILE).is_file()]


def _runs_below(directory: Path, skipped: list[Skipped]) -> Iterator[DiscoveredRun]:
    """Yield the runs at or below a directory; add damaged ones, and folders without any run, to `skipped`."""
    if not directory.is_dir():
        reason = "is a file; name a directory" if directory.exists() else "no such directory"
        skipped.append(Skipped(directory, reason))
        return
    for path in _discover(directory, MAX_DEPTH, skipped):
        try:
            runs = runs_at(path)
        except (UserError, OSError) as error:
            skipped.append(Skipped(path, _reason(error, path)))
            continue
        if not runs:
            skipped.append(Skipped(path, "a study without jobs"))
        yield from runs


def _discover(directory: Path, depth: int, skipped: list[Skipped]) -> list[Path]:
    """Find runs and studies as `sweep.discover` does; report topmost folders without any, and unreadable ones."""
    skipped_below: list[Skipped] = []
    try:
        if is_run_or_study(directory):
            return [directory]
        below = [folder for folder in subdirectories(directory) if not folder.name.startswith(".")] if depth else []
    except OSError as error:
        skipped.append(Skipped(directory, str(error.strerror)))
        return []
    paths = [path for folder in below for path in _discover(folder, depth - 1, skipped_below)]
    unreadable = [entry for entry in skipped_below if entry.reason != _NO_RUNS]
    skipped += skipped_below if paths else unreadable or [Skipped(directory, _NO_RUNS)]
    return paths


def _name(path: Path, directory: Path, with_directory: bool) -> str:
    """Return the path below the directory that was named, after the name of that if there are several."""
    below = str(path.relative_to(directory))
    if below == ".":
        return directory.resolve().name
    return f"{directory.resolve().name}/{below}" if with_directory else below


def _read_config(run: RunDirectory) -> dict[str, Any]:
    _refuse_large(run.config)
    config = run.read_config()
    if type(config.get("format")) is not int:
        raise UserError("its config.yaml was not written by litlab: it has no key `format` with a number")
    check_plain(config)
    return config


def _name_weights(init: Any, names: dict[str, str]) -> str | None:
    """Return the run or file that a run started from as one setting: files with the same content are one."""
    path, sha256 = (as_mapping(init).get(key) for key in ("path", "sha256"))
    if not isinstance(path, str) or not isinstance(sha256, str):
        return None
    source = Path(path)
    source = source.parents[1] if source.parts[-2:] == ("checkpoints", "best.ckpt") else source
    return names.setdefault(sha256, numbered(str(display_path(source)), names.values()))


def _refuse_large(file: Path) -> None:
    if file.stat().st_size > _MAX_FILE:
        raise UserError(f"{file} is damaged: it is longer than {_MAX_FILE >> 20} MiB")


def _read_run(discovered: DiscoveredRun, config: dict[str, Any], name: str) -> Run:
    run = discovered.run
    state, result = _read_result(run)
    seed, settings = config.get("seed"), flatten(config)
    data = _text(result.get("data"))
    fold = _fold(settings, data)
    has_folds = fold is not None or (FOLDS in settings and settings.get(FOLD) is None)
    return Run(
        path=run.path,
        name=name,
        study=discovered.study,
        status=state.status,
        message=state.message,
        seed=seed if type(seed) is int else None,
        settings={key: value for key, value in settings.items() if not (has_folds and key == FOLD)},
        choices={
            key: value
            for key, value in discovered.point.items()
            if key != ABLATION and not (has_folds and config_key(key) == FOLD)
        },
        objective=_objective(config.get("objective")),
        fold=fold,
        data=data,
        variant=_variant(config.get("study")),
        best=_metrics(result.get("best")),
        last=_metrics(result.get("last")),
        test=_metrics(result.get("test")),
        epochs=_count(result.get("epochs")) or 0,
        steps=_count(result.get("steps")) or 0,
        training_seconds=as_number(as_mapping(result.get("seconds")).get("training")),
        images_per_second=as_number(result.get("images_per_second")),
        device=_text(result.get("device")),
        precision=_text(result.get("precision")),
        parameters=_count(result.get("parameters")),
        trainable_parameters=_count(result.get("trainable_parameters")),
        ended=run.result.stat().st_mtime if result else 0.0,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _fold(settings: Mapping[str, Any], data: str | None) -> Fold | None:
    """Return the fold of a run whose data module has folds; `data` is the fingerprint of all its images and labels."""
    number = settings.get(FOLD)
    if type(number) is not int or settings.get(FOLDS) is None:
        return None
    ignored = (*_NOT_IN_PARTITION, *volatile_keys(settings.get("data._target_")))
    keys = sorted(key for key in settings if lies_under(key, "data") and not lies_under(key, *ignored))
    return Fold(" ".join([*(f"{key}={text(settings[key])}" for key in keys), f"fingerprint={data}"]), number)


def _variant(study: Any) -> Variant | None:
    """Return the changes of a job of an ablation; None for other runs, and for what litlab can't have written."""
    names, changes = as_mapping(study).get("ablation"), as_mapping(as_mapping(study).get("ablate"))
    try:
        check_changes(dict(changes))
    except ValueError:
        return None
    known = frozenset(name for name, overrides in changes.items() if overrides is not None)
    if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
        return None
    overrides = mask_command([str(line) for name in names for line in changes[name]])
    return Variant(tuple(names), tuple(dict.fromkeys(overrides)), known)


def _read_result(run: RunDirectory) -> tuple[RunState, Mapping[str, Any]]:
    if not run.result.exists():
        return read_state(run), {}
    _refuse_large(run.result)
    result = run.read_json(run.result)
    return state_from_result(result), as_mapping(result)


def _objective(value: Any) -> Objective | None:
    """Return None for an objective that no config of litlab may have."""
    objective = as_mapping(value)
    metric, mode = objective.get("metric"), objective.get("mode")
    if not isinstance(metric, str) or not _is_name(metric) or mode not in ("max", "min"):
        return None
    return None if split_of(metric) == "test" else Objective(metric, mode)


def _metrics(value: Any) -> dict[str, float]:
    """Keep the metrics that have a finite value."""
    items = as_mapping(value).items()
    return {name: number for name, value in items if _is_name(name) and (number := as_number(value)) is not None}


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and name.isprintable()


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 and as_number(value) is not None else None


def _reason(error: UserError | OSError, path: Path) -> str:
    """Return the message without the path, which precedes it."""
    message = (error.strerror or "it can't be read") if isinstance(error, OSError) else str(error)
    return message.replace(f"{path}/", "")
