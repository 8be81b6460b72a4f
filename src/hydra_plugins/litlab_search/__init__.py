"""Hydra's sweeper `search`: what Hydra hands over, given to litlab.config and litlab.sweep.

Hydra imports this at each start of `litlab train`, so everything else is imported where it is needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob
    from litlab.config.search_space import Space
    from litlab.sweep.search.settings import SearchSettings
    from litlab.sweep.search.source import SearchSource
    from litlab.sweep.search.spec import Search
    from litlab.sweep.study import Plan, Study

_OF_SPACE = ("params", "conditional")


class SearchSweeper(Sweeper):
    """Asks Optuna for one job after the other, and prunes those that are hopeless."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are read from the config again, which has them as they were written as well."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """
        Raises:
            UserError: with another launcher than litlab's own.
        """
        from hydra.core.plugins import Plugins

        from hydra_plugins.litlab_multirun import PoolLauncher
        from litlab.errors import UserError

        self.hydra_context, self.config = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not isinstance(launcher, PoolLauncher):
            raise UserError(
                f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: a search needs hydra/launcher=pool, "
                "which starts jobs one by one and can stop those that are hopeless"
            )
        self.launcher: PoolLauncher = launcher

    def sweep(self, arguments: list[str]) -> Any:
        """
        Raises:
            UserError: for settings, a space or jobs that are wrong; none has started then.
            RunFailed: if a job failed.
            RunStopped: after a signal.
        """
        try:
            self._sweep(arguments)
        finally:
            self.launcher.close()

    def _sweep(self, arguments: list[str]) -> None:
        from litlab.sweep.compatibility import check_compatible
        from litlab.sweep.search.settings import read_settings

        given = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=True)
        assert isinstance(given, dict)
        values = {str(key): value for key, value in given.items() if key != "_target_"}
        settings = read_settings({key: value for key, value in values.items() if key not in _OF_SPACE})
        space = self._space(values, arguments, settings)
        study = self.launcher.study()
        search = self._search(study, settings, space)
        plan = self._plan(search)
        check_compatible(study, plan, [])
        if self.launcher.is_dry_run:
            from litlab.sweep.search.report import outline

            print("\n".join(outline(search, study)))
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

    def _search(self, study: Study, settings: SearchSettings, space: Space) -> Search:
        """With a first look at what its jobs are like, so that errors in them are found before anything is written."""
        from litlab.sweep.search.spec import describe
        from litlab.sweep.search.storage import study_name

        known = study.plan.search if study.plan is not None else {}
        name = study_name(study.path, settings.storage, known)
        swept = [each.key for each in space.dimensions]

        def compose(overrides: list[str], number: int) -> ComposedJob:
            from litlab.config.job_configs import Point, compose_jobs
            from litlab.config.tree import bare_key

            point = Point.of(overrides, {bare_key(key) for key in swept})
            (job,) = compose_jobs(
                self.launcher.loader, self.launcher.config, [point], study.known_jobs, number, progress=False
            )
            return job

        return describe(name, settings, space, compose, self.launcher.provenance())

    def _plan(self, search: Search) -> Plan:
        """The plan has the settings as they were written: a reference to a secret, not the secret."""
        from litlab.config.secrets import mask_secrets

        written = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=False)
        assert isinstance(written, dict)
        kept = {str(key): value for key, value in written.items() if key not in ("_target_", *_OF_SPACE)}
        return self.launcher.plan("search", search.space.axes, mask_secrets(kept) | {"study_name": search.name})

    def _run(self, study: Study, plan: Plan, search: Search) -> None:
        from litlab.compare.tensorboard import update_summary
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.sweep.multirun import run_search
        from litlab.sweep.search.source import SearchSource
        from litlab.sweep.search.storage import check_url

        pool, opened = self.launcher.pool(), []

        def source() -> SearchSource:
            opened.append(SearchSource(search, study, pool))
            return opened[0]

        try:
            pool.check([search.typical])
            if search.settings.storage is not None:
                check_url(search.settings.storage)
            retries = self.launcher.settings["retries"]
            ended = run_search(study, plan, source, pool, retries=retries, begun=update_summary)
        except OSError as error:
            raise UserError(explain_write_error(study.path, error)) from error
        update_summary(study.path)
        _say(search, study, opened[0], ended.received)


def _say(search: Search, study: Study, source: SearchSource, received: int | None) -> None:
    """
    Raises:
        UserError: if the trials could not be told how jobs came out.
        RunFailed: if a job did not come out done or pruned, or there was none.
        RunStopped: after a signal.
    """
    from litlab.errors import RunFailed
    from litlab.process.controller import RunStopped
    from litlab.process.signals import exit_code
    from litlab.runs.state import RunStatus
    from litlab.sweep.display import summary
    from litlab.sweep.search.report import findings

    with search.explained(study):
        found = findings(search, study, source.trials, is_out_of_points=source.is_out_of_points)
    print("\n".join(found))
    jobs = [replace(job, config=job.config | {"objective": None}) for job in source.started.values()]
    said = summary(study.path, jobs, source.outcomes, received=received, retries_failures=False)
    print("\n".join(said), flush=True)
    if source.error is not None:  # which came after a signal
        raise source.error
    if received is not None:
        raise RunStopped(exit_code(received))
    if not study.records or any(
        outcome.status not in (RunStatus.COMPLETED, RunStatus.PRUNED) for outcome in source.outcomes.values()
    ):
        raise RunFailed(1)
