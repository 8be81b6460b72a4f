"""Run a search in processes that are killed at chosen moments."""

import itertools
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial
from support.search_jobs import LR, WIDTH, run_search

from litlab.sweep.search import proposals
from litlab.sweep.search.sampler import DistinctSampler

# Where a process is killed: the function, and whether that is before it does anything or after.
MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "a trial without values": (DistinctSampler, "sample_relative", True),
    "a trial with half its values": (Trial, "suggest_float", False),
    "proposed, not created": (proposals, "create_jobs", True),
    "created, not started": (proposals, "create_jobs", False),
    "reported": (Trial, "report", False),
    "ended, not recorded": (optuna.Study, "tell", True),
    "recorded": (optuna.Study, "tell", False),
}


def kill_at(moment: str, call: int) -> None:
    """Have this process killed at the nth call of a function."""
    owner, name, before = MOMENTS[moment]
    function, calls = getattr(owner, name), itertools.count(1)

    def killing(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == call
        if last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        returned = function(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return returned

    setattr(owner, name, killing)


def main() -> None:
    """Run with the arguments: directory, number of trials, `moment=call` for each kill, empty to let it end.

    Each process is forked, so that the imports are paid once. Prints its exit code and the number of trials by state.
    """
    path, trials, *moments = sys.argv[1:]
    for moment in moments:
        if (child := os.fork()) == 0:
            name, _, call = moment.partition("=")
            if name:
                kill_at(name, int(call))
            run_search(Path(path), LR, WIDTH, trials=int(trials), pruner="median")
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with closing(sqlite3.connect(Path(path) / "search.db")) as database:
            states = dict(database.execute("select state, count(*) from trials group by state").fetchall())
        print("ended", json.dumps({"moment": moment, "code": code, "states": states}), flush=True)


if __name__ == "__main__":
    main()
