"""What the tests share: a cache of their own, a finished run, and the command line."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from support.runs import TINY, Command, call_litlab, train_here
from support.warm import end_server

from litlab.runs.directory import RunDirectory

# Minutes or many seconds each: first, so that none is still at work when the other process has run out of files.
LONGEST = (
    "test_real_data", "test_multiruns", "test_local", "test_worker", "test_tensorboard_page", "test_train_multirun",
    "test_train", "test_slurm", "test_stop_reason", "test_train_decide", "test_loggers", "test_schedule_factory",
    "test_module_state", "test_divergence", "test_job_configs", "test_user_project", "test_recipes", "test_signals",
    "test_search_sampler", "test_resume", "test_startup",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache or key; all processes of a test share one."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LITLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        environment.setenv("LITLAB_LEASES", str(tmp_path_factory.mktemp("leases")))  # not the devices of real studies
        environment.setenv("OMP_NUM_THREADS", "1")
        yield
        end_server()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Handle Ctrl-C: a shell starts its background jobs with it ignored, which all processes would inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """One finished run for all tests that only look at it."""
    return train_here(tmp_path_factory.mktemp("tiny") / "run", *TINY)


@pytest.fixture
def litlab(tmp_path: Path) -> Command:
    """Return the command line, called in an empty folder that is the user's project."""
    project = tmp_path / "project"
    project.mkdir()

    return partial(call_litlab, project)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many tests on real data and on a real cluster ran, which are skipped where there is none."""
    for marker, name in (("real_data", "real CIFAR-10"), ("cluster", "a real SLURM cluster")):
        passed, failed = (
            [test for test in terminalreporter.getreports(outcome) if test.when == "call" and marker in test.keywords]
            for outcome in ("passed", "failed")
        )
        terminalreporter.write_line(f"on {name}: {len(passed)} passed, {len(failed)} failed")
