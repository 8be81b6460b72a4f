"""`python -m benchmarks.warm_script SCRIPT`: train on request by the functions of a public script, see `serve`.

The file is imported as it is. What its last block does before its own loop is done here: one network for all runs, and
a run "warmup" (request 0), which compiles it.
"""

import importlib.util
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from benchmarks.public_scripts import read_outcome
from benchmarks.warm_process import serve


def load(path: Path) -> ModuleType:
    """Import a script, which reads its own text by `sys.argv`."""
    sys.argv = [str(path)]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = script
    spec.loader.exec_module(script)
    return script


def run(script: ModuleType, network: nn.Module, number: int) -> dict[str, float]:
    """Train and test once."""
    with redirect_stdout(StringIO()) as printed:
        script.print_columns(script.logging_columns_list, is_head=True)
        script.main(number or "warmup", network)
    return read_outcome(printed.getvalue())


def main(path: Path) -> None:
    script = load(path)
    network = script.CifarNet().cuda().to(memory_format=torch.channels_last)
    network.compile(mode="max-autotune")
    serve(partial(run, script, network))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
