"""Hydra's launcher `pool` and sweeper `grid`: what Hydra hands over, given to litlab.config and litlab.sweep.

Hydra imports this at each start of `litlab train`, so everything else is imported where it is needed.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob, Point
    from litlab.sweep.backends.base import Backend
    from litlab.sweep.multirun import MultirunEnd
    from litlab.sweep.outcome import Outcome
    from litlab.sweep.study import Plan, Study


class PoolLauncher(Launcher):
    """Runs the jobs of a multirun on the devices of this machine.

    A sweeper of litlab's uses its parts and closes it; any other calls `launch`, as often as it likes.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self._pool: Backend | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """
        Raises:
            UserError: for settings that are out of range, and where the jobs could not be given processes.
        """
        from litlab.config.compose import record_swept_overrides
        from litlab.config.schema import Pool
        from litlab.config.validate import check_settings

        check_settings("hydra.launcher", self.settings, Pool)
        _refuse_environment(config)
        record_swept_overrides(config)
        self.loader, self.config = hydra_context.config_loader, config

    @property
    def is_dry_run(self) -> bool:
        return bool(self.settings["dry_run"])

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a grid, or what a sweeper takes for a batch.

        Raises:
            UserError: if any of the jobs is wrong; none has started then.
            RunStopped: after a signal.
        """
        from litlab.config.compose import swept_overrides
        from litlab.config.job_configs import Point
        from litlab.process.controller import RunStopped
        from litlab.process.signals import exit_code
        from litlab.sweep.backends import make_backend
        from litlab.sweep.compatibility import check_compatible
        from litlab.sweep.display import table

        points = [Point.of(overrides, swept_overrides(self.config)) for overrides in job_overrides]
        study = self.study()
        if not self.is_dry_run:
            self.pool()  # takes seconds to be ready, in which the jobs are composed
        jobs = self.compose(points, study, progress=True)
        distinct = list({job.number: job for job in jobs}.values())
        if len(distinct) < len(jobs):
            print(f"litlab: {len(jobs)} points are {len(distinct)} different experiments, each a job", file=sys.stderr)
        plan = self.plan("grid", _axes(points), {})
        if self.is_dry_run:
            check_compatible(study, plan, jobs)
            make_backend(self.settings).check([job.config for job in distinct], dry_run=True)
            print("\n".join(table(study, distinct)))
            return [_returned(point, None, JobStatus.COMPLETED) for point in points]
        ended = self._run(study, plan, distinct)
        if ended.received is not None:
            raise RunStopped(exit_code(ended.received))
        outcomes = {job.number: outcome for job, outcome in zip(distinct, ended.outcomes, strict=True)}
        return [_of_outcome(point, outcomes[job.number]) for point, job in zip(points, jobs, strict=True)]

    def _run(self, study: Study, plan: Plan, jobs: Sequence[ComposedJob]) -> MultirunEnd:
        from litlab.compare.tensorboard import update_summary
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.runs.terminal import display_path
        from litlab.sweep.multirun import run_grid

        asked = {"provenance": self.provenance(), "retries": self.settings["retries"]}
        try:
            end = run_grid(study, plan, jobs, self.pool(), begun=update_summary, **asked)
        except OSError as error:
            raise UserError(explain_write_error(display_path(study.path), error)) from error
        update_summary(study.path)
        return end

    def pool(self) -> Backend:
        """The pool, which starts with the first call."""
        from litlab.sweep.backends import make_backend

        if self._pool is None:
            self._pool = make_backend(self.settings)
            self._pool.start()
            atexit.register(self.close)
        return self._pool

    def close(self) -> None:
        """End what still runs."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            atexit.unregister(self.close)

    def study(self) -> Study:
        """The study in the directory of the multirun, as it is now."""
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.sweep.study import Study

        try:
            return Study.load_own(Path(self.config.hydra.sweep.dir).absolute())
        except OSError as error:
            raise UserError(explain_write_error(self.config.hydra.sweep.dir, error)) from error

    def compose(self, points: Sequence[Point], study: Study, *, progress: bool) -> list[ComposedJob]:
        """The jobs of a study at these points, one for each; see `compose_jobs`."""
        from litlab.config.job_configs import compose_jobs, match_existing_jobs

        numbers = {each.number: each.overrides for each in study.records}
        points = match_existing_jobs(points, numbers, study.plan.axes if study.plan is not None else ())
        return compose_jobs(self.loader, self.config, points, study.known_jobs, study.next_number, progress=progress)

    def plan(self, kind: Literal["grid", "search"], axes: dict[str, list[str]], search: dict[str, Any]) -> Plan:
        """What study.yaml will say of this command."""
        from litlab.config.secrets import mask_arguments, mask_secrets
        from litlab.sweep.backends import SETTINGS
        from litlab.sweep.study import Plan

        base = OmegaConf.to_container(self.config, resolve=False, enum_to_str=True)
        assert isinstance(base, dict)
        return Plan(
            kind=kind,
            axes=axes,
            base=mask_secrets({str(key): value for key, value in base.items() if key != "hydra"}),
            arguments=mask_arguments(sys.argv[1:]),
            launcher={name: self.settings[name] for name in SETTINGS},
            search=search,
            project=str(self.config.hydra.runtime.cwd),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def provenance(self) -> dict[str, Any]:
        """What provenance.json says of this command."""
        from litlab.runs.provenance import of_launch

        return of_launch(Path(self.config.hydra.runtime.cwd), ["litlab", "train", *sys.argv[1:]])


class GridSweeper(Sweeper):
    """Every combination of the values swept, all handed to the launcher at once; writes nothing itself."""

    def __init__(self, params: dict[str, Any] | None, paired: Sequence[Any]) -> None:
        self._params = params or {}
        self._paired = paired

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        from litlab.config.compose import record_swept_overrides
        from litlab.config.grid import params_with_references

        record_swept_overrides(config)
        self._params = params_with_references(self._params, config.hydra.sweeper)
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """
        Raises:
            UserError: for axes or jobs that are wrong; none has started then.
            RunFailed: if a job failed.
        """
        from litlab.config.grid import expand_grid
        from litlab.errors import RunFailed

        assert self.hydra_context is not None
        assert self.launcher is not None
        points = expand_grid(arguments, self._params, self._paired, self.hydra_context.config_loader)
        if not isinstance(self.launcher, PoolLauncher):
            returned = self.launcher.launch(points, initial_job_idx=0)
            return [each.return_value for each in returned]  # raises the error of a job that failed
        try:
            returned = self.launcher.launch(points, initial_job_idx=0)
        finally:
            self.launcher.close()
        if any(each.status == JobStatus.FAILED for each in returned):
            raise RunFailed(1)
        return [each.return_value for each in returned]


def _refuse_environment(config: DictConfig) -> None:
    """Say what the pool can't do in this environment.

    Raises:
        UserError: naming it.
    """
    from litlab.errors import UserError

    if config.hydra.job.env_set:
        raise UserError(
            "hydra.job.env_set, hydra.job.env_copy: jobs of hydra/launcher=pool have the environment of the command; "
            "set the variables there"
        )


def _axes(points: Sequence[Point]) -> dict[str, list[str]]:
    """The values of each swept key, in the order in which they come."""
    axes: dict[str, dict[str, None]] = {}
    for point in points:
        for key, value in point.swept.items():
            axes.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in axes.items()}


def _of_outcome(point: Point, outcome: Outcome | None) -> JobReturn:
    """For Hydra and its sweepers: the objective; the error of a job that failed is raised by whoever asks for it."""
    from litlab.errors import RunFailed
    from litlab.runs.state import RunStatus

    if outcome is None or outcome.status not in (RunStatus.COMPLETED, RunStatus.PRUNED):
        return _returned(point, RunFailed(1), JobStatus.FAILED)
    return _returned(point, outcome.objective, JobStatus.COMPLETED)


def _returned(point: Point, value: Any, status: JobStatus) -> JobReturn:
    returned = JobReturn(overrides=list(point.overrides), status=status)
    returned.return_value = value
    return returned
