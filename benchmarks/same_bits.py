"""Compare the bits that two checkouts of litlab compute: weights and metric values of the same runs.

    python benchmarks/same_bits.py CHECKOUT --out new.json  # some minutes; nothing is written into the checkout
    python benchmarks/same_bits.py --compare old.json new.json

Other processors, versions of torch and numbers of threads give other bits, so both files should come from one machine.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CIFAR10 = os.environ.get("LITLAB_CIFAR10", "")  # a folder or archive of its images
STOP_AT = 100  # steps that are in metrics.csv before a run is stopped
PATIENCE = 1800  # seconds that a command may take
SMALL = ("data=shapes", "data.num_train=4000", "data.num_test=500", "data.val_size=500", "trainer.max_epochs=2")
LONG_EPOCHS = (  # two of 1,188 steps, so that there is time to stop within the first
    "data=shapes", "data.num_train=20000", "data.batch_size=16", "trainer=cpu", "trainer.max_epochs=2",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Runs whose bits are compared.

    Attributes:
        overrides: of `litlab train`, besides data, threads and directories.
        threads: of each process.
        real: whether it trains on CIFAR-10.
        kind: a run; a study, of which all jobs count; or a run that is stopped and continued, beside one that is not.
    """

    overrides: tuple[str, ...]
    threads: int = 1
    real: bool = False
    kind: Literal["run", "study", "stopped"] = "run"


SCENARIOS = {
    "quickstart": Scenario(("experiment=quickstart",), threads=2),
    "tutorial": Scenario(
        ("experiment=tutorial", "++trainer.max_steps=1000", "trainer.log_every_n_steps=100"), real=True
    ),
    "fast_cpu": Scenario(  # its first epoch has images of 24 pixels, its second of 32
        ("experiment=fast_cpu", "trainer.max_epochs=2"), threads=2, real=True
    ),
    "ddp": Scenario((*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")),
    "search": Scenario(
        (
            "-m", "hydra/sweeper=search", *SMALL, "trainer=cpu", "model.widths=[4,8]", "model.hidden=[8],[16,8]",
            "optimizer.lr=tag(log,interval(1e-3,1))", "optimizer.weight_decay=tag(log,interval(1e-5,1e-2))",
            "hydra.sweeper.trials=6", "hydra.sweeper.seed=0", "hydra.sweeper.pruner=null", "hydra.launcher.jobs=1",
            "+hydra.sweeper.sampler_options.n_startup_trials=2",  # after these, results decide what is tried next
        ),
        kind="study",
    ),
    "resumed": Scenario(LONG_EPOCHS, kind="stopped"),
    "ema_resumed": Scenario((*LONG_EPOCHS, "callbacks=ema", "callbacks.ema.decay=0.99"), kind="stopped"),
}  # fmt: skip


def measure(checkout: Path, folder: Path, scenario: Scenario) -> dict[str, Any]:
    """Run a scenario.

    Args:
        checkout: whose `litlab` is called.
        folder: an empty one to call it in.
        scenario: what is run.

    Returns:
        The hash of the weights, and the metric values by job, metric and step.

    Raises:
        RuntimeError: if a command fails, or a run that was stopped ends otherwise than the one that was not.
    """
    real = ("data=image_folder", f"data.root='{CIFAR10}'") if scenario.real else ()
    train = ("train", *scenario.overrides, *real, f"threads={scenario.threads}")
    whole, stopped = folder / "outputs" / "whole", folder / "outputs" / "stopped"
    if scenario.kind == "study":
        _call(checkout, folder, *train, "study.name=whole")
        return _bits(*sorted(path.parent for path in whole.glob("*/config.yaml")))
    _call(checkout, folder, *train, f"hydra.run.dir={whole}")
    found = _bits(whole)
    if scenario.kind == "stopped":
        _call(checkout, folder, *train, f"hydra.run.dir={stopped}", stop=stopped)
        step, end = _checkpoint(stopped)["global_step"], _checkpoint(whole)
        if step >= end["global_step"] or step % (end["global_step"] // end["epoch"]) == 0:
            raise RuntimeError(f"stopped after step {step}, which is not within an epoch")
        _call(checkout, folder, "resume", str(stopped))
        resumed = _bits(stopped)
        if resumed != found:
            different = _differing(found["metrics"], resumed["metrics"])
            raise RuntimeError(f"stopped after step {step} and continued, it ends otherwise; values: {different}")
        found["stopped_after"] = step
    return found


def compare(left: dict[str, Any], right: dict[str, Any], names: Sequence[str]) -> bool:
    """Print a table of what is equal.

    Args:
        left: the content of a file that `--out` wrote.
        right: that of another one.
        names: the scenarios that count; one that is missing is a difference.

    Returns:
        Whether all is equal.
    """
    for key in ("processor", "vectors", "torch", "python"):
        if left[key] != right[key]:
            print(f"note: another {key}: {left[key]}, {right[key]}")
    print(f"{'scenario':12}  {'weights equal':13}  metric values equal")
    all_equal = True
    for name in names:
        one, other = left["scenarios"].get(name), right["scenarios"].get(name)
        if one is None or other is None:
            print(f"{name:12}  not in {'either' if one is other else 'each'} of the files")
            all_equal = False
            continue
        weights, different = one["weights"] == other["weights"], _differing(one["metrics"], other["metrics"])
        number = len(one["metrics"] | other["metrics"])
        first = f"; first: {': '.join(map(str, different[0]))}" if different else ""
        threads = "" if one["threads"] == other["threads"] else "; other numbers of threads"
        print(f"{name:12}  {'yes' if weights else 'NO':13}  {number - len(different)} of {number}{first}{threads}")
        all_equal &= weights and not different
    return all_equal


def _call(checkout: Path, folder: Path, *arguments: str, stop: Path | None = None) -> None:
    """Run a command of litlab to its end, or until the run in the directory `stop` is well within its training."""
    log, deadline, expected = folder / "command.log", time.monotonic() + PATIENCE, 143 if stop else 0
    environment = os.environ | {"LITLAB_CACHE": str(folder / "cache")}  # images are decoded anew
    command: list[str | Path] = [checkout / ".venv" / "bin" / "litlab", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            while stop and process.poll() is None and not _is_under_way(stop) and time.monotonic() < deadline:
                time.sleep(0.01)
            if stop:
                process.send_signal(signal.SIGTERM)
            code = process.wait(max(deadline - time.monotonic(), 60))
        finally:
            process.terminate()  # where it still runs
    if code != expected:
        raise RuntimeError(f"exit code {code}, expected {expected}, of {arguments}:\n{log.read_text()}")


def _is_under_way(run: Path) -> bool:
    """Tell whether `STOP_AT` steps of training are in metrics.csv."""
    file = run / "metrics.csv"
    lines = file.read_text().splitlines()[1:-1] if file.exists() else []  # the last one may be torn
    return any(",train/loss," in line and int(line.split(",")[1]) >= STOP_AT for line in lines)


def _bits(*runs: Path) -> dict[str, Any]:
    """Hash the weights of runs, one run after the other, and collect their metric values."""
    import torch

    digest, metrics = hashlib.sha256(), {}
    for run in runs:
        checkpoint = _checkpoint(run)
        weights = dict(checkpoint["state_dict"])  # with callbacks=ema: the averages; those in training lie beside them
        for name, value in checkpoint.get("litlab_ema", {}).get("trained", {}).items():
            weights[f"trained.{name}"] = value
        for name, value in sorted(weights.items()):
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        with (run / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                key = f"{f'{run.name} ' if len(runs) > 1 else ''}{row['metric']}@{row['step']}"
                if key in metrics:
                    raise RuntimeError(f"{key} is twice in metrics.csv")
                if not row["metric"].startswith("throughput/") and "seconds" not in row["metric"]:
                    metrics[key] = row["value"]
    return {"weights": digest.hexdigest(), "metrics": metrics}


def _checkpoint(run: Path) -> dict[str, Any]:
    """Read the last checkpoint of a run."""
    import torch  # not above, since a comparison does without

    found: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return found


def _differing(left: dict[str, str], right: dict[str, str]) -> list[tuple[str, str | None, str | None]]:
    """List each key whose value differs, or which only one side has, with both values."""
    return [(key, left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)]


def _facts(checkout: Path) -> dict[str, Any]:
    """Collect what bits depend on."""
    import torch

    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    facts = {"commit": commit, "processor": model[1] if model else platform.machine(), "cores": os.cpu_count()}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return facts | {"vectors": torch.backends.cpu.get_cpu_capability()} | versions | {"scenarios": {}}


def main() -> None:
    """Measure a checkout with the Python of its own environment, or compare two files."""
    parser = argparse.ArgumentParser(description="whether two checkouts of litlab compute the same bits")
    parser.add_argument("checkout", nargs="?", type=Path, help="where `make install` was called")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="by default all")
    parser.add_argument("--out", type=Path, help="the file to write")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE", help="two such files")
    arguments = parser.parse_args()
    if arguments.compare:
        left, right = (json.loads(file.read_text()) for file in arguments.compare)
        sys.exit(not compare(left, right, arguments.scenario))
    if not arguments.checkout or not (environment := arguments.checkout.resolve() / ".venv").is_dir():
        parser.error("name a checkout where `make install` was called")
    if Path(sys.prefix).resolve() != environment.resolve():
        os.execv(environment / "bin" / "python", [str(environment / "bin" / "python"), *sys.argv])
    facts = _facts(arguments.checkout)
    for name in arguments.scenario:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            found = measure(environment.parent, Path(folder).resolve(), SCENARIOS[name])
            seconds = round(time.perf_counter() - start, 1)
        facts["scenarios"][name] = {"threads": SCENARIOS[name].threads, "seconds": seconds} | found
        print(f"{name:12}  {seconds:6.1f} s  {len(found['metrics']):4} values  {found['weights']}", flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
