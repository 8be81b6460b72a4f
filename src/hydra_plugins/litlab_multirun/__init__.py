"""Hydra's launcher `pool` and sweeper `grid`: adapters from Hydra to litlab.config and litlab.sweep.

Hydra imports this module at each start of `litlab train`, so other modules are imported in functions.
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
    from litlab.sweep.multirun import GridResult
    from litlab.sweep.outcome import Outcome
    from litlab.sweep.study import Plan, Study


class BackendLauncher(Launcher):
    """Launcher that runs the jobs of a multirun on one of litlab's backends.

    litlab's sweepers use its methods and close it; other sweepers call `launch` any number of times.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings  # keys of `hydra.launcher`, see conf/hydra/launcher/
        self._backend: Backend | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the settings.

        Raises:
            UserError: For settings that are out of range, or that the backend can't fulfill.
        """
        from litlab.config.compose import record_swept_overrides
        from litlab.config.validate import check_launcher
        from litlab.errors import UserError

        self.settings = _to_plain(self.settings)
        check_launcher(self.settings)
        if config.hydra.job.env_set:
            raise UserError(
                "hydra.job.env_set, hydra.job.env_copy: jobs have the environment of the command; set variables there"
            )
        record_swept_overrides(config)
        self.loader, self.config = hydra_context.config_loader, config

    @property
    def is_dry_run(self) -> bool:
        """True if nothing is to be started or written."""
        return bool(self.settings["dry_run"])

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a grid, or a batch of jobs from another sweeper.

        Args:
            job_overrides: Overrides of each job.
            initial_job_idx: Ignored: the study numbers its jobs.

        Returns:
            The objective of each job, or the error of one that failed.

        Raises:
            UserError: If any of the jobs is wrong; no job has started then.
            RunStopped: After a signal.
        """
        from litlab.config.ablation import check_effects
        from litlab.config.compose import swept_overrides
        from litlab.config.job_configs import Point
        from litlab.process.controller import RunStopped
        from litlab.process.signals import exit_code
        from litlab.sweep.backends import make_backend
        from litlab.sweep.compatibility import check_compatible
        from litlab.sweep.summary import format_jobs

        points = [Point.of(overrides, swept_overrides(self.config)) for overrides in job_overrides]
        study = self.study()
        if not self.is_dry_run:
            self.open_backend()  # may take seconds to start; the jobs are composed meanwhile
        jobs = self.compose(points, study, progress=True)
        notes = check_effects([(point.swept, job.identity) for point, job in zip(points, jobs, strict=True)])
        for note in notes:
            print(f"litlab: {note}", file=sys.stderr)
        distinct = list({job.number: job for job in jobs}.values())
        if len(distinct) < len(jobs):
            print(f"litlab: {len(jobs)} points are {len(distinct)} different experiments, each a job", file=sys.stderr)
        plan = self.plan("grid", _axes(points), {})
        if self.is_dry_run:
            check_compatible(study, plan, jobs)
            make_backend(self.settings, study.path).check([job.config for job in distinct], dry_run=True)
            print("\n".join(format_jobs(study, distinct)))
            return [_new_job_return(point, None, JobStatus.COMPLETED) for point in points]
        end = self._run(study, plan, distinct)
        if end.signum is not None:
            raise RunStopped(exit_code(end.signum))
        outcomes = {job.number: outcome for job, outcome in zip(distinct, end.outcomes, strict=True)}
        return [_job_return(point, outcomes[job.number]) for point, job in zip(points, jobs, strict=True)]

    def _run(self, study: Study, plan: Plan, jobs: Sequence[ComposedJob]) -> GridResult:
        from litlab.compare.tensorboard_summary import update_summary
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.runs.terminal import display_path
        from litlab.sweep.multirun import run_grid

        try:
            launch, retries = self.provenance(), self.settings["retries"]
            end = run_grid(
                study, plan, jobs, self.open_backend(), provenance=launch, retries=retries, on_start=update_summary
            )
        except OSError as error:
            raise UserError(explain_write_error(display_path(study.path), error)) from error
        update_summary(study.path)
        return end

    def open_backend(self) -> Backend:
        """Return the backend, and start it at the first call."""
        from litlab.sweep.backends import make_backend

        if self._backend is None:
            self._backend = make_backend(self.settings, Path(self.config.hydra.sweep.dir))
            self._backend.start()
            atexit.register(self.close)
        return self._backend

    def close(self) -> None:
        """Close the backend."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
            atexit.unregister(self.close)

    def study(self) -> Study:
        """Read the study in the directory of the multirun."""
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.sweep.study import Study

        try:
            return Study.load_own(Path(self.config.hydra.sweep.dir).absolute())
        except OSError as error:
            raise UserError(explain_write_error(self.config.hydra.sweep.dir, error)) from error

    def compose(self, points: Sequence[Point], study: Study, *, progress: bool) -> list[ComposedJob]:
        """Compose the jobs of a study, one for each point; see `compose_jobs`."""
        from litlab.config.job_configs import compose_jobs, match_existing_jobs

        existing = {record.number: record.overrides for record in study.records}
        points = match_existing_jobs(points, existing, study.plan.axes if study.plan is not None else ())
        return compose_jobs(self.loader, self.config, points, study.known_jobs, study.next_number, progress=progress)

    def plan(
        self, kind: Literal["grid", "search", "decide"], axes: dict[str, list[str]], search: dict[str, Any]
    ) -> Plan:
        """Return the plan of this command, as study.yaml records it."""
        from litlab.config.job_overrides import as_written, job_values
        from litlab.config.secrets import mask_arguments, mask_secrets
        from litlab.config.tree import put
        from litlab.sweep.study import Plan

        flags = [name for name in ("dry_run", "detach") if name in self.settings]  # of this command alone
        composed = OmegaConf.to_container(self.config, resolve=False, enum_to_str=True)
        assert isinstance(composed, dict)
        base = {str(key): value for key, value in composed.items() if key != "hydra"}
        for key, value in job_values(sys.argv[1:]).items():
            put(base, key, value)
        planned = self._planned_seeds(0 if kind == "search" else len(axes.get("seed", ["0"])), kind)
        return Plan(
            kind=kind,
            axes=axes,
            base=mask_secrets(base),
            arguments=mask_arguments([*map(as_written, sys.argv[1:])]),
            launcher=self.settings | dict.fromkeys(flags, False),
            search=search,
            project=str(self.config.hydra.runtime.cwd),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            planned_seeds=planned,
        )

    def _planned_seeds(self, num_swept: int, kind: Literal["grid", "search", "decide"]) -> list[int]:
        """Return the number of seeds that this command plans for each setting; none if it is unknown."""
        from litlab.errors import UserError

        num = OmegaConf.select(self.config, "study.seeds")
        if num is not None and num < num_swept and kind == "decide":
            raise UserError(
                f"study.seeds={num}: fewer than hydra.sweeper.seeds_max={num_swept}, the number of seeds that decide "
                "plans for; set hydra.sweeper.seeds_max instead, and leave out study.seeds"
            )
        if num is not None and num < num_swept:
            raise UserError(
                f"study.seeds={num}: fewer than the {num_swept} values of `seed`; expected the number of seeds that "
                "are planned for each setting, or null for those of this command"
            )
        return [num or num_swept] * bool(num or num_swept)

    def provenance(self) -> dict[str, Any]:
        """Return the record of this command for provenance.json."""
        from litlab.config.job_overrides import as_written
        from litlab.runs.provenance import describe_launch

        command = ["litlab", "train", *map(as_written, sys.argv[1:])]
        return describe_launch(Path(self.config.hydra.runtime.cwd), command)


def adaptive_launcher(
    hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, subject: str
) -> BackendLauncher:
    """Instantiate the launcher of a sweeper that chooses the next job by the results so far.

    Args:
        hydra_context: Of Hydra.
        task_function: Of Hydra.
        config: Config of the multirun.
        subject: What needs it, for error messages: `a search`.

    Raises:
        UserError: If it can't start jobs one by one.
    """
    from hydra.core.plugins import Plugins

    from litlab.config.schema import LAUNCHERS
    from litlab.errors import UserError

    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task_function, config=config
    )
    if not isinstance(launcher, BackendLauncher):
        raise UserError(
            f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: {subject} needs one of litlab's "
            f"launchers, which start jobs one by one and can stop them: {', '.join(LAUNCHERS)}"
        )
    if launcher.settings.get("detach"):
        raise UserError(f"--detach: {subject} goes on only while its command runs, which chooses the next jobs")
    if launcher.settings["backend"] != "pool" and launcher.settings["jobs"] is None:
        raise UserError(
            f"hydra.launcher.jobs=null: expected a number for {subject} on a cluster: a job is chosen when it is "
            "submitted, and the later that is, the more results there are"
        )
    return launcher


class GridSweeper(Sweeper):
    """Sweeper over all combinations of the swept values. It passes all jobs to the launcher at once.

    Args:
        params: Key -> axis, besides those on the command line.
        paired: Axes that vary together; keys or lists of keys.
    """

    def __init__(self, params: dict[str, Any] | None, paired: Sequence[Any]) -> None:
        self._params = params or {}
        self._paired = paired

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher."""
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
        """Run the grid and return the objective of each job.

        Raises:
            UserError: For axes or jobs that are wrong; no job has started then.
            RunFailed: If a job failed.
        """
        from litlab.config.grid import expand_grid
        from litlab.errors import RunFailed

        assert self.hydra_context is not None
        assert self.launcher is not None
        points = expand_grid(arguments, self._params, self._paired, self.hydra_context.config_loader)
        points = self._with_ablation(points)
        if not isinstance(self.launcher, BackendLauncher):
            results = self.launcher.launch(points, initial_job_idx=0)
            return [result.return_value for result in results]  # raises the error of a job that failed
        try:
            results = self.launcher.launch(points, initial_job_idx=0)
        finally:
            self.launcher.close()
        if any(result.status == JobStatus.FAILED for result in results):
            raise RunFailed(1)
        return [result.return_value for result in results]

    def _with_ablation(self, points: list[list[str]]) -> list[list[str]]:
        """Return the jobs of the ablation that `study.ablate` asks for; without one, the same points."""
        from litlab.config.ablation import expand_ablation, read_changes
        from litlab.config.ablation_changes import ABLATION
        from litlab.config.compose import swept_overrides

        assert self.config is not None
        value = OmegaConf.select(self.config, "study.ablate")
        value = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        if not (changes := read_changes(value)):
            return points
        swept = [key for key in swept_overrides(self.config) if key != ABLATION]
        grid = expand_ablation(points, changes, swept, pairs=self.config.study.ablate_pairs)
        for note in grid.notes:
            print(f"litlab: {note}", file=sys.stderr)
        return grid.overrides


def _to_plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as plain Python: Hydra hands over lists as its own."""
    plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _axes(points: Sequence[Point]) -> dict[str, list[str]]:
    """Return the values of each swept key, in their order."""
    axes: dict[str, dict[str, None]] = {}
    for point in points:
        for key, value in point.swept.items():
            axes.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in axes.items()}


def _job_return(point: Point, outcome: Outcome | None) -> JobReturn:
    """Return Hydra's record of a job: its objective, or an error that is raised when the sweeper reads the value."""
    from litlab.errors import RunFailed

    if outcome is None or not outcome.is_success:
        return _new_job_return(point, RunFailed(1), JobStatus.FAILED)
    return _new_job_return(point, outcome.objective, JobStatus.COMPLETED)


def _new_job_return(point: Point, value: Any, status: JobStatus) -> JobReturn:
    result = JobReturn(overrides=list(point.overrides), status=status)
    result.return_value = value
    return result
