"""Hydra's sweeper `search`: adapter from Hydra to litlab.config and litlab.sweep.search.

Hydra imports this module at each start of `litlab train`, so other modules are imported in functions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hydra_plugins.litlab_multirun import BackendLauncher
    from litlab.config.job_configs import ComposedJob
    from litlab.config.search_space import Space
    from litlab.sweep.search.proposals import SearchSource
    from litlab.sweep.search.settings import SearchSettings
    from litlab.sweep.search.spec import SearchSpec
    from litlab.sweep.study import Plan, Study

_SPACE_KEYS = ("params", "conditional")


class SearchSweeper(Sweeper):
    """Sweeper that gets one job after the other from Optuna and prunes those that fall behind."""

    def __init__(self, **settings: Any) -> None:
        """Initialize the sweeper. `settings` are read from the config later, which also has them unresolved."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher.

        Raises:
            UserError: With another launcher than litlab's own.
        """
        from hydra_plugins.litlab_multirun import adaptive_launcher

        self.hydra_context, self.config = hydra_context, config
        self.launcher: BackendLauncher = adaptive_launcher(hydra_context, task_function, config, "a search")

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search.

        Raises:
            UserError: For settings, a space or jobs that are wrong; no job has started then.
            RunFailed: If a job failed.
            RunStopped: After a signal.
        """
        try:
            self._sweep(arguments)
        finally:
            self.launcher.close()

    def _sweep(self, arguments: list[str]) -> None:
        from litlab.sweep.compatibility import check_compatible
        from litlab.sweep.search.settings import read_settings

        resolved = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=True)
        assert isinstance(resolved, dict)
        values = {str(key): value for key, value in resolved.items() if key != "_target_"}
        settings = read_settings({key: value for key, value in values.items() if key not in _SPACE_KEYS})
        space = self._space(values, arguments, settings)
        study = self.launcher.study()
        search = self._search(study, settings, space)
        plan = self._plan(search)
        check_compatible(study, plan, [])
        if self.launcher.is_dry_run:
            from litlab.sweep.search.report import describe_search

            print("\n".join(describe_search(search, study)))
        else:
            self._run(study, plan, search)

    def _space(self, values: dict[str, Any], arguments: list[str], settings: SearchSettings) -> Space:
        from litlab.config.search_space import parse_space
        from litlab.sweep.search.settings import check_sampler

        assert self.hydra_context is not None
        chosen = {str(group): str(name) for group, name in self.launcher.config.hydra.runtime.choices.items()}
        loader = self.hydra_context.config_loader
        space = parse_space(loader, values["params"], arguments, values["conditional"], chosen)
        check_sampler(settings, space)
        return space

    def _search(self, study: Study, settings: SearchSettings, space: Space) -> SearchSpec:
        """Describe the search; example jobs are composed, so that errors in them show before anything is written."""
        from litlab.config.tree import bare_key
        from litlab.sweep.search.spec import make_search_spec
        from litlab.sweep.search.storage import make_study_name

        recorded = study.plan.search if study.plan is not None else {}
        name = make_study_name(study.path, settings.storage, recorded)
        swept = {bare_key(dimension.key) for dimension in space.dimensions}

        def compose(overrides: list[str], number: int) -> ComposedJob:
            from litlab.config.job_configs import Point, compose_jobs

            launcher, points = self.launcher, [Point.of(overrides, swept)]
            jobs = compose_jobs(launcher.loader, launcher.config, points, study.known_jobs, number, progress=False)
            return jobs[0]

        return make_search_spec(name, settings, space, compose, self.launcher.provenance())

    def _plan(self, search: SearchSpec) -> Plan:
        """Return the plan with unresolved settings, so that it holds references to secrets, not their values."""
        from litlab.config.secrets import mask_secrets

        unresolved = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=False)
        assert isinstance(unresolved, dict)
        kept = {str(key): value for key, value in unresolved.items() if key not in ("_target_", *_SPACE_KEYS)}
        return self.launcher.plan("search", search.space.axes, mask_secrets(kept) | {"study_name": search.name})

    def _run(self, study: Study, plan: Plan, search: SearchSpec) -> None:
        from litlab.compare.tensorboard_summary import update_summary
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.sweep.multirun import run_source
        from litlab.sweep.search.proposals import SearchSource
        from litlab.sweep.search.storage import check_url

        backend, opened = self.launcher.open_backend(), []

        def source() -> SearchSource:
            opened.append(SearchSource(search, study, backend))
            return opened[0]

        try:
            backend.check([search.typical_config])
            if search.settings.storage is not None:
                check_url(search.settings.storage)
            retries = self.launcher.settings["retries"]
            signum = run_source(study, plan, source, backend, retries=retries, on_start=update_summary)
        except OSError as error:
            raise UserError(explain_write_error(study.path, error)) from error
        update_summary(study.path)
        _report(opened[0], signum)


def _report(source: SearchSource, signum: int | None) -> None:
    """Print the results of a search."""
    from litlab.errors import RunFailed
    from litlab.process.controller import RunStopped
    from litlab.process.signals import exit_code
    from litlab.sweep.search.report import report_trials
    from litlab.sweep.summary import summarize

    study = source.study
    with source.search.storage_errors(study):
        print("\n".join(report_trials(source)))
    jobs = [replace(job, config=job.config | {"objective": None}) for job in source.started.values()]
    lines = summarize(study.path, jobs, source.outcomes, signum=signum, retries_failures=False)
    print("\n".join(lines), flush=True)
    if source.error is not None:  # raised after a signal, too
        raise source.error
    if signum is not None:
        raise RunStopped(exit_code(signum))
    if not study.records or not all(outcome.is_success for outcome in source.outcomes.values()):
        raise RunFailed(1)
