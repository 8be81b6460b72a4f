"""Where a search keeps its trials: a SQLite file in the study's directory, or the database of a URL."""

import secrets
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import Trial
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.progress import ProgressReader
from litlab.runs.redact import keep_out, redact
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.search.objectives import Objective, num_validations
from litlab.sweep.search.settings import WHERE

FILE = "search.db"
_OBJECTIVES = "objectives"  # an attribute of Optuna's study
_PATIENCE = 60  # seconds, while somebody else reads the file


def study_name(path: Path, url: str | None, known: dict[str, Any]) -> str:
    """The name of a search in its database; in one that others use as well it is like no other."""
    if "study_name" in known:
        return str(known["study_name"])
    return path.name if url is None else f"{path.name}-{secrets.token_hex(4)}"


@contextmanager
def explained(path: Path, url: str | None) -> Iterator[None]:
    """What the database refuses, in words and without its password.

    Raises:
        UserError: instead of the database's error.
    """
    try:
        yield
    except UserError:
        raise
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError) as error:
        where = f"{WHERE}.storage" if url is not None else str(path / FILE)
        said = error.__cause__ or error  # Optuna's own words say less
        line = " ".join(redact(str(said)).splitlines()[:1])
        raise UserError(f"{where}: the trials of the search can't be read or written: {line}") from None


def check_url(url: str) -> None:
    """Try whether there is a database, before anything is written elsewhere.

    Raises:
        UserError: if there is no getting at it; without the password.
    """
    keep_out([url])
    with explained(Path(), url):
        _storage(Path(), url).remove_session()


def open_trials(
    path: Path, url: str | None, name: str, objectives: Sequence[Objective], sampler: BaseSampler, pruner: BasePruner
) -> optuna.Study:
    """The trials of a search, made if they are not there.

    Args:
        path: the directory of the study.
        url: of a database, as Optuna takes it; None for the file in the directory.

    Raises:
        UserError: if there is no getting at them.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is not None:
        keep_out([url])
    with explained(path, url), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # names for the dashboard
        study = optuna.create_study(
            storage=_storage(path, url),
            study_name=name,
            directions=[StudyDirection[each.direction.upper()] for each in objectives],
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        wanted = [[each.metric, each.mode] for each in objectives]
        if _OBJECTIVES not in study.user_attrs:
            study.set_user_attr(_OBJECTIVES, wanted)
            study.set_metric_names([each.metric for each in objectives])
    known = study.user_attrs[_OBJECTIVES]
    if known != wanted:
        raise UserError(
            f"{path}: this search goes by {_listed(known)}, and not by {_listed(wanted)}; choose another study.name"
        )
    return study


def _listed(objectives: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{metric} ({mode})" for metric, mode in objectives)


def _storage(path: Path, url: str | None) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(url or _address(path), engine_kwargs=_options(url))
    except (TypeError, ValueError) as error:  # of a driver that does not know a parameter of the URL
        raise RuntimeError(str(error)) from None


def _address(path: Path) -> str:
    address = URL.create("sqlite", database=str((path / FILE).absolute())).render_as_string(hide_password=False)
    return address.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template


def _options(url: str | None) -> dict[str, Any]:
    local = url is None or url.startswith("sqlite:")
    return {"connect_args": {"timeout": _PATIENCE}} if local else {}


_ENDS = (RunStatus.COMPLETED, RunStatus.PRUNED, RunStatus.FAILED, RunStatus.REFUSED)


class Following:
    """Reports the validation values of a job to its trial: the first as step 1, each once, however often it resumes."""

    def __init__(self, trial: Trial, job: Job, metric: str | None, reported: Collection[int]) -> None:
        """
        Args:
            metric: what is reported; None where there is nothing to prune by.
            reported: the steps that the trial has already.
        """
        self.trial = trial
        self._metric = metric
        self._follower = ProgressReader(job.run, job.config)
        self._last = num_validations(job.config)
        self._places: dict[int, int] = {}  # optimizer step -> which validation that was
        self._reported = set(reported)

    def report(self) -> bool:
        """Report what is new; tell whether the job is hopeless, as long as there is something left to save."""
        hopeless = False
        for row in self._follower.read():
            if row.metric != self._metric or row.step in self._places:
                continue
            place = self._places[row.step] = len(self._places) + 1
            if place in self._reported:
                continue
            self.trial.report(row.value, place)
            self._reported.add(place)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of values that are no numbers
                worse = self.trial.should_prune()  # asked of each value, since pruners keep account of them
            hopeless = worse and place != self._last
        return hopeless


def outcome_in_files(run: RunDirectory) -> Outcome | None:
    """How a run ended that nobody waited for; None if it is to go on."""
    try:
        result = run.read_json(run.result)
    except UserError:
        return None
    if not isinstance(result, dict):
        return None
    status = str(result.get("status"))
    return Outcome(RunStatus(status), str(result.get("error") or ""), (), result, 0.0) if status in _ENDS else None
