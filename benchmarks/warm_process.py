"""Processes that train again and again on request, so that imports, compilation and kernels are paid for once.

A contender calls `serve` with a function that trains once. Several contenders take turns: those whose turn it is not
wait for their standard input and leave the GPU idle.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

_CHECKOUT = Path(__file__).parents[1]
_LOG_LINES = 15  # shown of a contender that failed


def serve(run: Callable[[int], Mapping[str, float]]) -> None:
    """Call a function for each number on standard input, and write what it returns to standard output as JSON.

    Whatever else the process prints goes to its standard error.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            print(json.dumps(dict(run(int(line)))), file=answers, flush=True)


class WarmProcess:
    """Client of a process that calls `serve`.

    Args:
        folder: Working directory of the process.
        log: File for what it prints.
        arguments: Arguments of the Python interpreter; modules of `benchmarks` can be imported.
    """

    def __init__(self, folder: Path, log: Path, *arguments: str) -> None:
        self._log = log
        path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": path}, bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, number: int) -> dict[str, float]:
        """Let it train once and return what its function returned.

        Raises:
            RuntimeError: It ended instead; with its last output.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"%d\n" % number)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            code = self._process.wait()
            output = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            raise RuntimeError("\n".join([f"ended with exit code {code}:", *output]))
        values: dict[str, float] = json.loads(answer)
        return values
