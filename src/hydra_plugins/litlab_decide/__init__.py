"""Hydra's sweeper `decide`: adapter from Hydra to litlab.config and litlab.sweep.decide.

Hydra imports this module at each start of `litlab train`, so other modules are imported in functions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_plugins.litlab_multirun import BackendLauncher
    from litlab.config.job_configs import ComposedJob
    from litlab.sweep.decide.settings import DecideSettings, Setting
    from litlab.sweep.decide.source import DecideSource, DecideSpec, Known
    from litlab.sweep.study import Plan, Study


class DecideSweeper(Sweeper):
    """Sweeper that adds seeds to settings until it is decided which is better."""

    def __init__(self, **settings: Any) -> None:
        """Initialize the sweeper. `settings` are read from the config later, which also has them unresolved."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher.

        Raises:
            UserError: With another launcher than litlab's own.
        """
        from hydra_plugins.litlab_multirun import adaptive_launcher

        self.hydra_context, self.config = hydra_context, config
        self.launcher: BackendLauncher = adaptive_launcher(hydra_context, task_function, config, "decide")

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study.

        Raises:
            UserError: For settings or jobs that are wrong; no job has started then.
            RunFailed: If a job failed.
            RunStopped: After a signal.
        """
        try:
            self._sweep(arguments)
        finally:
            self.launcher.close()

    def _sweep(self, arguments: list[str]) -> None:
        from litlab.errors import UserError
        from litlab.sweep.compatibility import check_compatible
        from litlab.sweep.decide.settings import read_settings
        from litlab.sweep.decide.source import check_growth

        resolved = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=True)
        assert isinstance(resolved, dict)
        settings = read_settings({str(key): value for key, value in resolved.items() if key != "_target_"})
        if OmegaConf.select(self.launcher.config, "study.ablate"):
            raise UserError("study.ablate: is for hydra/sweeper=grid; decide compares hydra.sweeper.settings")
        study = self.launcher.study()
        candidates, skipped_seeds = self._candidates(settings, arguments, study)
        spec = self._spec(settings, candidates, skipped_seeds)
        plan = self._plan(spec, candidates)
        check_compatible(study, plan, list(spec.examples.values()))
        check_growth(spec, study)
        if self.launcher.is_dry_run:
            from litlab.sweep.decide.report import describe_decide

            print("\n".join(describe_decide(spec, study)))
        else:
            self._run(study, plan, spec)

    def _candidates(
        self, settings: DecideSettings, arguments: list[str], study: Study
    ) -> tuple[list[Setting], list[int]]:
        """Return the settings to compare, and the seeds that have selected them."""
        from litlab.config.compose import swept_overrides
        from litlab.config.grid import expand_grid, params_with_references
        from litlab.errors import UserError
        from litlab.sweep.decide import settings as decide

        assert self.hydra_context is not None
        params = params_with_references(settings.params or {}, self.launcher.config.hydra.sweeper)
        points = expand_grid(arguments, params, [], self.hydra_context.config_loader)
        swept, skipped_seeds = swept_overrides(self.launcher.config), list[int]()
        if settings.settings is None and settings.from_study is None:
            candidates = decide.settings_of_axes(points, swept)
        elif len(points) > 1:
            name = "settings" if settings.settings is not None else "from_study"
            raise UserError(
                f"{', '.join(swept)}: expected one value, since hydra.sweeper.{name} names what is compared"
            )
        elif settings.settings is not None:
            candidates = decide.named_settings(self._with_references(settings.settings), points[0])
        else:
            found, skipped_seeds = self._best(settings, study)
            candidates = [decide.with_overrides(setting, points[0]) for setting in found]
        decide.check_different(candidates)
        return candidates, skipped_seeds

    def _with_references(self, settings: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return settings by name in which interpolations are not resolved: jobs record them, not a secret's value."""
        unresolved = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=False)
        assert isinstance(unresolved, dict)
        written = unresolved["settings"]
        return written if isinstance(written, dict) and written.keys() == settings.keys() else settings

    def _best(self, settings: DecideSettings, study: Study) -> tuple[list[Setting], list[int]]:
        """Return the best settings of another study: those that this study has begun with, then others."""
        from litlab.sweep.decide.record import read_record
        from litlab.sweep.decide.settings import Setting, best_of_study, load_source, seeds_of_study

        assert settings.from_study is not None
        before = study.plan.search.get("resolved") if study.plan is not None and study.records else None
        found = [Setting(**values) for values in before] if isinstance(before, list) else []
        found = [replace(setting, overrides=tuple(setting.overrides)) for setting in found]
        record = read_record(study.path)
        if len(found) >= settings.best and record is not None:
            return found, record.skipped_seeds
        source = load_source(settings.from_study, Path(self.launcher.config.hydra.runtime.cwd))
        points = [setting.point for setting in found]
        others = [setting for setting in best_of_study(source, settings.best) if setting.point not in points]
        seeds = seeds_of_study(source) if record is None else record.skipped_seeds
        return [*found, *others][: max(settings.best, len(found))], seeds

    def _spec(self, settings: DecideSettings, candidates: Sequence[Setting], skipped_seeds: list[int]) -> DecideSpec:
        """Describe the study; a job of each setting is composed, so that errors show before anything is written."""
        from litlab.config.job_configs import Point, compose_jobs
        from litlab.sweep.decide.settings import SEED, find_baseline, find_objective
        from litlab.sweep.decide.source import make_spec

        launcher = self.launcher

        def compose(setting: Setting, seed: int, number: int, known: Known) -> ComposedJob:
            overrides = [*setting.overrides, f"{SEED}={seed}"]
            points = [Point.of(overrides, {*setting.point, SEED})]
            return compose_jobs(launcher.loader, launcher.config, points, known, number, progress=False)[0]

        baseline = None if settings.baseline is None else find_baseline(settings.baseline, candidates)
        provenance = launcher.provenance()
        return make_spec(settings, candidates, baseline, find_objective, skipped_seeds, compose, provenance)

    def _plan(self, spec: DecideSpec, candidates: Sequence[Setting]) -> Plan:
        """Return the plan with unresolved settings, so that it holds references to secrets, not their values."""
        from litlab.config.secrets import mask_secrets
        from litlab.sweep.decide.record import seed_at
        from litlab.sweep.decide.settings import SEED

        unresolved = OmegaConf.to_container(self.launcher.config.hydra.sweeper, resolve=False)
        assert isinstance(unresolved, dict)
        kept = {str(key): value for key, value in unresolved.items() if key not in ("_target_", "params")}
        if spec.settings.from_study is not None:
            kept["resolved"] = [
                {"name": setting.name, "overrides": list(setting.overrides), "point": setting.point}
                for setting in candidates
            ]
        axes: dict[str, list[str]] = {}
        for setting in candidates:
            for key, value in setting.point.items():
                axes[key] = list(dict.fromkeys([*axes.get(key, []), value]))
        seeds = [str(seed_at(index, spec.skipped_seeds)) for index in range(spec.settings.seeds_max)]
        return self.launcher.plan("decide", axes | {SEED: seeds}, mask_secrets(kept))

    def _run(self, study: Study, plan: Plan, spec: DecideSpec) -> None:
        from litlab.compare.tensorboard_summary import update_summary
        from litlab.config.hydra_errors import explain_write_error
        from litlab.errors import UserError
        from litlab.sweep.decide.source import DecideSource
        from litlab.sweep.multirun import run_source

        backend, opened = self.launcher.open_backend(), list[DecideSource]()

        def source() -> DecideSource:
            opened.append(DecideSource(spec, study, backend))
            return opened[0]

        try:
            backend.check([job.config for job in spec.examples.values()])
            retries = self.launcher.settings["retries"]
            signum = run_source(study, plan, source, backend, retries=retries, on_start=update_summary)
        except OSError as error:
            raise UserError(explain_write_error(study.path, error)) from error
        update_summary(study.path)
        _report(opened[0], signum)


def _report(source: DecideSource, signum: int | None) -> None:
    """Print the answer."""
    from litlab.errors import RunFailed
    from litlab.process.controller import RunStopped
    from litlab.process.signals import exit_code
    from litlab.sweep.decide.answer import format_answer
    from litlab.sweep.summary import summarize

    study, is_over = source.study, source.decisions.is_over
    print("\n".join(format_answer(source.answer)))
    jobs = [replace(job, config=job.config | {"objective": None}) for job in source.started.values()]
    lines = summarize(study.path, jobs, source.outcomes, signum=signum, retries_failures=False, is_over=is_over)
    print("\n".join(lines), flush=True)
    if source.error is not None:  # raised after a signal, too
        raise source.error
    if signum is not None:
        raise RunStopped(exit_code(signum))
    if not is_over or not all(outcome.is_success for outcome in source.outcomes.values()):
        raise RunFailed(1)
