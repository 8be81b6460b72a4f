"""Lightning's loop over the batches of an epoch, which does the same in a part of the time."""

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from litlab.stepping.step import Step, is_standard


class EpochLoop(_TrainingEpochLoop):
    """Trains on batch after batch, as far as nothing but training is due, without Lightning's machinery between them.

    Hooks, their order, counters, logging and results are Lightning's. What it can't do itself (`is_standard` names it),
    the first batch after a restart, and whatever comes between two batches besides, such as validations, it leaves to
    the loop that it comes in place of.
    """

    _step: Step | None = None

    @classmethod
    def put_into(cls, trainer: Trainer) -> None:
        """Takes the place of a new Trainer's own loop."""
        theirs = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, theirs.min_steps, theirs.max_steps)

    @property
    def global_step(self) -> int:
        """Optimizer steps done, asked for several times a step."""
        return super().global_step if self._step is None else self.automatic_optimization.optim_progress.optimizer_steps

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._step = Step(self.trainer) if is_standard(self.trainer, data_fetcher) else None
        self._looks_up_every = self._num_batches_between_events()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on batches until something else may be due, which `on_advance_end` sees to.

        Raises:
            StopIteration: when there are no more batches.
        """
        if self._step is None or self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        while True:
            has_stepped = self._train_on_next(self._step, data_fetcher)
            if self._is_something_due():
                return
            self._batches_that_stepped += has_stepped

    def _train_on_next(self, step: Step, data_fetcher: _DataFetcher) -> bool:
        """Returns whether the optimizer has made a step, rather than that gradients are to be accumulated."""
        batch, _, _ = next(data_fetcher)
        progress, trainer = self.batch_progress, self.trainer
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = step.ready(batch)
        progress.increment_ready()
        self._results_start(batch)
        if not step.hooks.are_current():
            step = self._step = Step(trainer)
        is_last = self._num_ready_batches_reached()
        accumulates = progress.current.ready % trainer.accumulate_grad_batches != 0 and not is_last
        outputs = None
        if batch is None:  # Lightning leaves it out, and says so in these words
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        else:
            step.hooks.call("on_train_batch_start", batch, batch_idx)
            progress.increment_started()
            outputs = step.optimize(batch, batch_idx, accumulates=accumulates)
        progress.increment_processed()
        if not accumulates:
            self._move_schedules(step)
        if is_last:
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        step.hooks.call("on_train_batch_end", outputs, batch, batch_idx)
        self._results_end()
        return not accumulates

    def _results_start(self, batch: Any) -> None:
        """What the logger connector does in `on_batch_start`."""
        connector, results = self.trainer._logger_connector, self._results
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

    def _results_end(self) -> None:
        """What it does after a batch, if `self.log` was called; and that the batch is done."""
        connector, results = self.trainer._logger_connector, self._results
        if results:
            connector.on_batch_end()
        results.batch = results.batch_size = None
        self.batch_progress.increment_completed()
        if results:
            connector.update_train_step_metrics()

    def _move_schedules(self, step: Step) -> None:
        """All but those that wait for a metric; as `update_lr_schedulers` does it."""
        for config in step.schedules:
            if not config.reduce_on_plateau and self.batch_progress.current.ready % config.frequency == 0:
                self.scheduler_progress.increment_ready()
                config.scheduler.step()  # type: ignore[call-arg]  # that of plateaus alone takes more
                self.scheduler_progress.increment_completed()

    def _is_something_due(self) -> bool:
        ready = self.batch_progress.current.ready
        return (
            self._num_ready_batches_reached()
            or ready % self._looks_up_every == 0
            or self.trainer.should_stop
            or (self.max_steps != -1 and self.global_step >= self.max_steps)
        )

    def _num_batches_between_events(self) -> float:
        """After so many batches of the epoch each, `on_advance_end` is to look what is due; infinity for never."""
        trainer = self.trainer
        if (
            trainer.check_val_every_n_epoch is None
            or trainer.val_check_batch is None  # by the clock
            or any(each.reduce_on_plateau for each in trainer.lr_scheduler_configs)
            or (trainer.val_check_batch == math.inf and isinstance(trainer.limit_train_batches, int))
        ):
            return 1
        return float(trainer.val_check_batch)
