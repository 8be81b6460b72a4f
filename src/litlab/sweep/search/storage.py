"""Storage of the trials of a search: a SQLite file in the study's directory, or the database of a URL.

Optuna unpickles the state of CMA-ES from it, and a pickle can execute anything. So only a study that the user signed is
opened (`Study.load_own`), and a database of a URL is to be shared only with people who are trusted.
"""

import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from litlab.config.schema import Objective
from litlab.errors import UserError
from litlab.runs.redact import redact, register_secrets
from litlab.sweep.search.settings import SECTION

FILE = "search.db"
_OBJECTIVES = "objectives"  # user attribute of Optuna's study
_TIMEOUT_SECONDS = 60  # while another process reads the file


def make_study_name(path: Path, url: str | None, recorded: dict[str, Any]) -> str:
    """Return the name of a search in its database: that of study.yaml, or a new one, unique in a database of a URL."""
    if "study_name" in recorded:
        return str(recorded["study_name"])
    return path.name if url is None else f"{path.name}-{secrets.token_hex(4)}"


@contextmanager
def storage_errors(path: Path, url: str | None) -> Iterator[None]:
    """Raise errors of the database as UserError, without its password.

    Raises:
        UserError: Instead of the database's error.
    """
    try:
        yield
    except UserError:
        raise
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError) as error:
        location = f"{SECTION}.storage" if url is not None else str(path / FILE)
        cause = error.__cause__ or error  # Optuna's own message has less details
        line = " ".join(redact(str(cause)).splitlines()[:1])
        raise UserError(f"{location}: the trials of the search can't be read or written: {line}") from None


def check_url(url: str) -> None:
    """Connect to a database once, before anything is written elsewhere.

    Raises:
        UserError: If that is impossible; without the password.
    """
    register_secrets([url])
    with storage_errors(Path(), url):
        _connect(Path(), url).remove_session()


def open_trials(path: Path, url: str | None, name: str, objectives: Sequence[Objective]) -> optuna.Study:
    """Open the trials of a search in the user's own study, or create them; `url` is None for the file in it.

    The caller sets the sampler and the pruner.

    Raises:
        UserError: If they can't be opened, or belong to other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is not None:
        register_secrets([url])
    with storage_errors(path, url), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # names for the dashboard
        study = optuna.create_study(
            storage=_connect(path, url),
            study_name=name,
            directions=["maximize" if objective.mode == "max" else "minimize" for objective in objectives],
            load_if_exists=True,
        )
        requested = [[objective.metric, objective.mode] for objective in objectives]
        if _OBJECTIVES not in study.user_attrs:
            study.set_user_attr(_OBJECTIVES, requested)
            study.set_metric_names([objective.metric for objective in objectives])
    stored = study.user_attrs[_OBJECTIVES]
    if stored != requested:
        before, now = (", ".join(f"{metric} ({mode})" for metric, mode in pairs) for pairs in (stored, requested))
        raise UserError(f"{path}: the objectives of this search are {before}, not {now}; choose another study.name")
    return study


def _connect(path: Path, url: str | None) -> optuna.storages.RDBStorage:
    is_sqlite = url is None or url.startswith("sqlite:")
    options = {"connect_args": {"timeout": _TIMEOUT_SECONDS}} if is_sqlite else {}
    try:
        return optuna.storages.RDBStorage(url or _file_url(path), engine_kwargs=options)
    except (TypeError, ValueError) as error:  # of a driver that does not know a parameter of the URL
        raise RuntimeError(str(error)) from None


def _file_url(path: Path) -> str:
    url = URL.create("sqlite", database=str((path / FILE).absolute())).render_as_string(hide_password=False)
    return url.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
