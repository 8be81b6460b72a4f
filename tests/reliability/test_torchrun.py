"""Two agents of torchrun as on two machines, by the command that `litlab train --freeze-only` prints.

They run in a network namespace of their own, since torchrun listens on all interfaces.
"""

import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from reliability.report import in_torture, trials
from reliability.runs import SMALL, seen, small_run
from reliability.workers import TIMEOUT, Workers, variables
from support.exact_resume import differences, outcome
from support.processes import wait_until

from litlab.process.launch_commands import launch_commands
from litlab.runs.directory import RunDirectory

EXACT = (*SMALL, "trainer.strategy=ddp", "checkpoint.every_steps=2")
TWO_AGENTS = 'ip link set lo up; "$@" & first=$!; "$@"; second=$?; wait $first && exit $second'
NAMESPACES = (["unshare", "--net"], ["unshare", "--map-root-user", "--net"])
SLOWLY = {"LITLAB_TEST_SLEEP": "train_batch 0 0.15"}


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """Return the command before one that is to run in a network namespace of its own."""
    for command in NAMESPACES:
        inside = [*command, "ip", "link", "set", "lo", "up"]
        if shutil.which("unshare") and subprocess.run(inside, capture_output=True).returncode == 0:
            return command
    pytest.skip("no permission for a network namespace, or no ip")


@pytest.fixture(scope="module")
def two_local_ranks(_all_workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = small_run(tmp_path_factory.mktemp("torchrun") / "run", *EXACT, "trainer.devices=2")
    for worker in _all_workers.fork_ranks(run, 2):
        assert worker.wait() == 0, worker.stderr()
    return run


class Agents:
    """Two agents that train a run.

    Attributes:
        run: The run directory.
    """

    def __init__(self, run: RunDirectory, namespace: list[str], **environment: str) -> None:
        self.run = run
        _, torchrun, _ = launch_commands(run, run.read_config())
        _, *variables_and_program = shlex.split(torchrun.replace("FIRST", "127.0.0.1"))
        command = ["env", *variables_and_program]
        command.insert(command.index("-m"), "--local-addr=127.0.0.1")
        self._output = run.path.parent / "torchrun.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*namespace, "sh", "-c", TWO_AGENTS, "sh", *command],
                env=variables() | environment | {"GLOO_SOCKET_IFNAME": "lo"}, stdout=output, stderr=output,
            )  # fmt: skip

    def output(self) -> str:
        return self._output.read_text()

    def wait(self) -> int:
        """Wait for the exit code, and check that no process is left."""
        code = self._process.wait(TIMEOUT)
        wait_until(lambda: not self.processes(), 5, self.output)
        return code

    def processes(self) -> list[psutil.Process]:
        """Return the agents and their workers."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            is_alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if is_alive and str(self.run.path) in (process.info["cmdline"] or []):
                found.append(process)
        return found

    def rank(self, number: int) -> psutil.Process:
        """Return the process of a rank."""
        return next(process for process in self.processes() if process.environ().get("RANK") == str(number))

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            process.kill()
        self._process.kill()
        self._process.wait()


@pytest.fixture
def agents(namespace: list[str], tmp_path: Path) -> Iterator[Agents]:
    run = small_run(tmp_path / "run", *EXACT, "trainer.devices=1", "trainer.num_nodes=2")
    started = Agents(run, namespace, **SLOWLY)
    yield started
    started.end()


@pytest.mark.row("2 machines by torchrun: result identical to that of 2 ranks on one")
@in_torture
def test_two_machines_are_two_local_ranks(agents: Agents, two_local_ranks: RunDirectory) -> None:
    assert agents.wait() == 0, agents.output()
    assert not differences(outcome(two_local_ranks), outcome(agents.run))


@pytest.mark.row("rank killed on one of 2 machines: torchrun starts the ranks again; result identical to 2 local ranks")
@in_torture
@trials(1, 5)
def test_a_killed_rank_starts_again(number: int, agents: Agents, two_local_ranks: RunDirectory) -> None:
    wait_until(lambda: len(seen(agents.run).get("seen.1", [])) >= 3 + number, TIMEOUT, agents.output)
    agents.rank(1 - number % 2).send_signal(signal.SIGKILL)
    assert agents.wait() == 0, agents.output()
    assert not differences(outcome(two_local_ranks), outcome(agents.run))
    assert max(map(len, seen(agents.run).values())) > len(seen(two_local_ranks)["seen.0"])  # something was repeated
