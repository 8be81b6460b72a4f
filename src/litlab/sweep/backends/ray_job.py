"""Program that Ray starts on a node for a job: becomes the worker of one run.

    python -m litlab.sweep.backends.ray_job RUN MARKER NUM_GPUS

MARKER is a file that exists once the job was withdrawn. Ray can't withdraw a job that waits: it starts the job, and
then asks it to stop.
"""

import os
import signal
import sys
from pathlib import Path

from litlab.process.controller import environment_without_ranks
from litlab.process.signals import STOP_SIGNALS, exit_code


def main() -> None:
    """Replace this process by the worker, unless the job was withdrawn."""
    run, marker, num_gpus = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the worker handles them
    if marker.exists():
        sys.exit(exit_code(signal.SIGTERM))
    # Ray may itself have been started by a launcher of ranks, or within a run.
    environment = environment_without_ranks()
    if not num_gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides GPUs only from a job that asks for some
    with (run / "run.log").open("ab") as log:
        for descriptor in (1, 2):  # standard output and standard error
            os.dup2(log.fileno(), descriptor)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "litlab.training.worker", str(run)], environment)


if __name__ == "__main__":
    main()
