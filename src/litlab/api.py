"""Python interface for scripts and notebooks: the command `litlab train` in a process of its own, and results.

Nothing of the calling process changes: not its folder, arguments, signal handlers, logging or Hydra's state. So calls
work in any thread and in the event loop of a notebook.
"""

import codecs
import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, overload

from litlab.compare.collect import collect
from litlab.compare.data_model import Run, Skipped
from litlab.compare.grouping import group_by_settings, varying_columns
from litlab.compare.setting_names import SEED, short_names
from litlab.errors import InUseError, RunFailed, UserError
from litlab.process.signals import STOP_SIGNALS, blocked_signals
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.state import RunStatus
from litlab.runs.terminal import FaultTolerantStream, format_value, headline, printable

if TYPE_CHECKING:
    import pandas as pd

    from litlab.inference.predictor import Predictor

_CHUNK_SIZE = 1 << 16  # bytes of output


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        directory: Run directory.
        name: Path below the directory that was named.
        status: As `litlab status` shows it: "completed" if all went well.
        error: Reason why it is not completed; empty if it is.
        seed: Seed; None if its config has none.
        fold: Fold that it was validated on, from 0; None without folds.
        settings: Values of its config by dotted keys, as far as they tell experiments apart: without the seed and keys
            that follow it, a fold, and keys that say where it computes, reads and writes, unless a study sweeps them.
        objective: Best value of the objective; None without one.
        best: Validation metrics where the objective was best.
        last: Last validation metrics.
        test: Metrics of the final test.
        epochs: Number of completed epochs.
        steps: Number of optimizer steps.
    """

    directory: Path
    name: str
    status: str
    error: str
    seed: int | None
    fold: int | None
    settings: Mapping[str, Any] = field(repr=False)
    objective: float | None
    best: Mapping[str, float]
    last: Mapping[str, float] = field(repr=False)
    test: Mapping[str, float]
    epochs: int
    steps: int

    @property
    def is_completed(self) -> bool:
        """Return True for a run that trained to its end and was tested."""
        return self.status == RunStatus.COMPLETED.value

    def history(self, metric: str) -> dict[int, float]:
        """Return the logged values of a metric by optimizer step, for a curve.

        Raises:
            UserError: If it was not logged, or metrics.csv is damaged.
        """
        file = RunDirectory(self.directory).metrics
        try:
            rows = read_metrics(file)
        except FileNotFoundError:
            raise UserError(f"{self.directory} has no values of {metric}: it has no metrics.csv") from None
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{file} is damaged: {printable(str(error))}") from error
        values = {row.step: row.value for row in rows if row.metric == metric}
        if not values:
            names = ", ".join(dict.fromkeys(row.metric for row in rows))
            raise UserError(f"{self.directory} has no values of {metric}; known: {printable(names)}")
        return values

    def load(self, checkpoint: str | None = None) -> "Predictor":
        """Load the trained network, as `litlab.load` does."""
        from litlab.inference import predictor  # imports torch

        return predictor.load(self.directory, checkpoint)


class Results(Sequence[RunResult]):
    """Results of runs, in their order; printed as a table.

    Attributes:
        skipped: Reason for each directory that could not be read.
    """

    def __init__(self, runs: Sequence[Run] = (), skipped: Sequence[Skipped] = ()) -> None:
        self.skipped = {str(entry.path): entry.reason for entry in skipped}
        self._results: list[RunResult] = []
        self._settings: list[dict[str, Any]] = []  # of each result, those that vary, by their short names
        groups = group_by_settings(runs)
        columns = varying_columns(groups)
        labels = short_names([column.key for column in columns], [key for run in runs for key in run.settings])
        for index, group in enumerate(groups):
            settings = {labels[column.key]: column.values[index] for column in columns}
            for run in group.runs:
                kept = {labels[c.key]: run.settings[c.key] for c in columns if c.key in run.settings}
                self._results.append(_to_result(run))
                self._settings.append(settings | kept)

    @overload
    def __getitem__(self, index: int) -> RunResult: ...

    @overload
    def __getitem__(self, index: slice) -> list[RunResult]: ...

    def __getitem__(self, index: int | slice) -> RunResult | list[RunResult]:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    @property
    def run(self) -> RunResult:
        """The only result.

        Raises:
            UserError: If there are several, or none.
        """
        if len(self) != 1:
            raise UserError(f"there are {len(self)} results: choose one by its index, as in results[0]")
        return self[0]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run: its name, status, seed and fold, the settings that vary, and its metrics."""
        rows = []
        for result, settings in zip(self._results, self._settings, strict=True):
            row: dict[str, Any] = {"run": result.name, "status": result.status, SEED: result.seed}
            if result.fold is not None:
                row["fold"] = result.fold
            rows.append({**row, **settings, **result.last, **result.best, **result.test})
        return rows

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a data frame of pandas.

        Raises:
            UserError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise UserError("to_pandas() needs the package pandas: pip install pandas") from error
        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        rows = self.rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [names] + [[_to_text(row.get(name)) for name in names] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells if rows]
        lines += [f"not read: {path}: {reason}" for path, reason in self.skipped.items()]
        return "\n".join(lines) or "no results"


def train(arguments: Sequence[str], project: "str | PathLike[str] | None" = None) -> Results:
    """Train with the arguments and errors of `litlab.train`."""
    if isinstance(arguments, str):
        raise UserError(f"litlab.train: expected a list of arguments, as in litlab.train([{arguments!r}])")
    for argument in arguments:
        if not isinstance(argument, str):
            raise UserError(f"litlab.train: expected texts as arguments, such as 'seed=1'; found {argument!r}")
    folder = Path.cwd() if project is None else Path(project)
    if not folder.is_dir():
        raise UserError(f"litlab.train: project={project}: no such folder")
    code, outcome = _call(list(arguments), folder)
    if "error" in outcome:
        raise (InUseError if code == InUseError.exit_code else UserError)(outcome["error"])
    directory = Path(outcome["directory"]) if outcome.get("directory") else None
    results = Results(*collect([directory])) if directory is not None and directory.is_dir() else Results()
    if code:
        message = outcome.get("message") or f"litlab train ended with exit code {code}; its output says why"
        raise RunFailed(code, _describe_failure(message, directory, results))
    return results


def results(*directories: "str | PathLike[str]") -> Results:
    """Read results with the arguments and errors of `litlab.results`."""
    runs, skipped = collect([Path(directory) for directory in directories])
    if not runs:
        reasons = "; ".join(f"{entry.path}: {entry.reason}" for entry in skipped)
        raise UserError(f"no results: {reasons or 'name a run directory, a study, or a folder of them'}")
    return Results(runs, skipped)


def _call(arguments: list[str], project: Path) -> tuple[int, dict[str, Any]]:
    """Run the command in a process group of its own; return its exit code and what it says about its outcome.

    Raises:
        KeyboardInterrupt: If it came meanwhile.
    """
    is_terminal = sys.stdout.isatty()  # then the command draws its progress bar itself
    with TemporaryFile() as outcome, _pipe() as (alive, _held):  # `_held` is closed when this process ends
        command = [sys.executable, "-P", "-m", "litlab.api", str(outcome.fileno()), str(alive), *arguments]
        with blocked_signals():  # until the command handles them
            process = subprocess.Popen(
                command,
                cwd=project,
                stdin=subprocess.DEVNULL,
                stdout=None if is_terminal else subprocess.PIPE,
                stderr=None if is_terminal else subprocess.STDOUT,
                pass_fds=(outcome.fileno(), alive),
                process_group=0,
            )
        if _follow(process):
            raise KeyboardInterrupt
        outcome.seek(0)
        content = outcome.read()
    code = process.returncode
    return (128 - code if code < 0 else code), json.loads(content) if content else {}


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _follow(process: "subprocess.Popen[bytes]") -> bool:
    """Print the output of a process to its end, and pass Ctrl-C on to it; return whether that came."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    is_interrupted = False
    while process.returncode is None:
        try:
            if process.stdout is not None:
                while chunk := os.read(process.stdout.fileno(), _CHUNK_SIZE):
                    print(decoder.decode(chunk), end="", flush=True)
            process.wait()
        except KeyboardInterrupt:
            is_interrupted = True
            process.send_signal(signal.SIGINT)
    if process.stdout is not None:
        process.stdout.close()
    return is_interrupted


def _describe_failure(message: str, directory: Path | None, results: Results) -> str:
    """Tell which runs did not complete, and why the first did not; else return the message of the command."""
    failed = [result for result in results if not result.is_completed]
    if not failed:
        return message
    first, error = failed[0], failed[0].error
    if len(results) == 1:
        return f"{first.directory} {first.status}" + (f": {error}" if error else "")
    reason = f"{first.name} {first.status}" + (f": {headline(error)}" if error else "")
    return f"{len(failed)} of {len(results)} runs of {directory} did not complete; {reason}"


def _to_result(run: Run) -> RunResult:
    return RunResult(
        directory=run.path,
        name=run.name,
        status=run.status.value,
        error=run.message,
        seed=run.seed,
        fold=None if run.fold is None else run.fold.number,
        settings=run.settings,
        objective=run.best.get(run.objective.metric) if run.objective else None,
        best=run.best,
        last=run.last,
        test=run.test,
        epochs=run.epochs,
        steps=run.steps,
    )


def _to_text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else format_value(value)


def _main(outcome_file: int, alive_pipe: int, arguments: list[str]) -> int:
    """Run `litlab train` for `_call`: the exit code is that of the command, whose errors are not printed here."""
    from litlab.cli import train as command

    sys.stdout, sys.stderr = FaultTolerantStream(sys.stdout), FaultTolerantStream(sys.stderr)
    for descriptor in (outcome_file, alive_pipe):
        os.set_inheritable(descriptor, False)  # not for the processes of the command
    threading.Thread(target=_stop_with_caller, args=(alive_pipe,), daemon=True).start()
    outcome: dict[str, Any] = {}
    code = 0
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the caller may ignore it, as background jobs do
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        command.main(arguments)
    except UserError as error:
        outcome["error"], code = str(error), error.exit_code
    except RunFailed as error:
        outcome["message"], code = str(error), error.exit_code
    except KeyboardInterrupt:
        code = 130
    outcome["directory"] = str(command.directory) if command.directory else None
    with os.fdopen(outcome_file, "wb") as file:
        file.write(json.dumps(outcome).encode())
    return code


def _stop_with_caller(alive_pipe: int) -> None:
    """Stop this process, as by a signal, once the caller has ended."""
    os.read(alive_pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
