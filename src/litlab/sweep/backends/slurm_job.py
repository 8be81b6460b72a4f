"""Program that SLURM starts for an element of an array: trains one run, and returns to the queue at the time limit.

    python -m litlab.sweep.backends.slurm_job LIST

The list names a run directory a line; SLURM_ARRAY_TASK_ID says which one is meant. On several nodes srun starts the
ranks of the run, on one node the worker does.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from litlab.errors import InUseError
from litlab.process.controller import environment_without_ranks
from litlab.process.signals import STOP_SIGNALS, blocked_signals, exit_code
from litlab.runs.files import write_text

REQUEUE_SECONDS = 60.0  # within which SLURM ends this program after it was requeued
_WORKER = ("-P", "-m", "litlab.training.worker")
# srun passes on SIGUSR1 and SIGUSR2. At SIGTERM it kills its tasks, at SIGINT it prints their states.
_SIGNAL_FOR_SRUN = {signal.SIGTERM: signal.SIGUSR2, signal.SIGINT: signal.SIGUSR2}


@dataclass(frozen=True)
class ElementFiles:
    """Files of an element of an array, beside the list.

    Attributes:
        folder: Folder of the list.
        token: Name of the array.
        index: Index of the element.
    """

    folder: Path
    token: str
    index: int

    @property
    def output(self) -> Path:
        """Output of the program."""
        return self.folder / f"{self.token}.{self.index}.out"

    @property
    def _exit(self) -> Path:
        return self.folder / f"{self.token}.{self.index}.exit"

    @property
    def _starts(self) -> Path:
        return self.folder / f"{self.token}.{self.index}.starts"

    @property
    def _requeued(self) -> Path:
        return self.folder / f"{self.token}.{self.index}.requeued"

    def exit_code(self) -> int | None:
        """Return the exit code of the worker; None if it has not ended since the last start."""
        try:
            return int(self._exit.read_text())
        except (OSError, ValueError):
            return None

    def num_starts(self) -> int:
        """Return how often the element has started."""
        try:
            return len(self._starts.read_text().splitlines())
        except OSError:
            return 0

    def record_start(self) -> None:
        """Record that the element starts, with time, job id and node."""
        self._exit.unlink(missing_ok=True)
        node, job = os.environ.get("SLURMD_NODENAME", "?"), os.environ.get("SLURM_JOB_ID", "?")
        with self._starts.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} job {job} on {node}\n")

    def record_requeue(self) -> None:
        """Record that the element returns to the queue by itself."""
        self._requeued.touch()

    def take_requeue(self) -> bool:
        """Return True if the element has returned to the queue by itself since the last call."""
        try:
            self._requeued.unlink()
        except OSError:
            return False
        return True

    def record_exit(self, code: int) -> None:
        """Record the exit code of the worker."""
        write_text(self._exit, str(code))


def write_list(folder: Path, token: str, runs: Sequence[Path]) -> Path:
    """Write the list of an array and return its path; it stays, since an sbatch that was cut off may hold its lock.

    The run directories are relative to that of the study, which other hosts may have mounted elsewhere.
    """
    path = folder / f"{token}.list"
    if not path.exists():
        write_text(path, "".join(f"{os.path.relpath(run, folder.parent)}\n" for run in runs))
    return path


def read_list(path: Path) -> list[Path]:
    """Read the list of an array."""
    study = path.absolute().parents[1]
    return [study / line for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Train the run of this element; return the exit code of its worker."""
    listed = Path(sys.argv[1])
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    files = ElementFiles(listed.parent, listed.stem, index)
    files.record_start()
    code, received = run_worker(read_list(listed)[index])
    is_warned = received == signal.SIGUSR1 and code == exit_code(signal.SIGUSR1)
    is_in_use = code == InUseError.exit_code  # by a worker on a node that SLURM has lost, for example: it may end soon
    if is_warned or is_in_use:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which SLURM ends this program once it is requeued
        if is_warned:
            files.record_requeue()
        # Not SLURM_JOB_ID: that of the last element is the id of the whole array.
        element = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}"
        if subprocess.run(["scontrol", "requeue", element]).returncode == 0:
            time.sleep(REQUEUE_SECONDS)
        files.take_requeue()
        code = InUseError.exit_code
    files.record_exit(code)
    return code


def run_worker(run: Path) -> tuple[int, int | None]:
    """Run the worker of a run directory, and pass stop signals on to it.

    Returns:
        The exit code, and the first signal that came, if one did.
    """
    command, environment = [sys.executable, *_WORKER, str(run)], dict(os.environ)
    by_srun = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1
    if by_srun:
        # SLURM 22.05 and later pass --cpus-per-task of sbatch on to srun no longer.
        cpus = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        command = ["srun", "--kill-on-bad-exit=1", f"--cpus-per-task={cpus}", *command]
    else:  # or a rank would take the one task of this allocation for the world
        environment = environment_without_ranks()
    received: list[int] = []
    with blocked_signals(), (run / "run.log").open("ab") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        def pass_on(signum: int, frame: FrameType | None) -> None:
            received.append(signum)
            worker.send_signal(_SIGNAL_FOR_SRUN.get(signal.Signals(signum), signum) if by_srun else signum)

        for signum in STOP_SIGNALS:
            signal.signal(signum, pass_on)
    code = worker.wait()
    return 128 - code if code < 0 else code, received[0] if received else None


if __name__ == "__main__":
    sys.exit(main())
