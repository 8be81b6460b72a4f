"""Payloads that an untrusted run may contain."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Node = dict[str, Any]
THEIRS = """\
from pathlib import Path
from torch import nn
Path({mark!r}).touch()
class Net(nn.Sequential):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(nn.Flatten(), nn.Linear(3 * 20 * 20, num_classes))
def make(*, num_classes, image_shape):
    return Net(num_classes=num_classes, image_shape=image_shape)
"""


class Call:
    """Object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def call_shell(mark: Path) -> Call:
    return Call(os.system, f"touch {mark}")


def change(run: Path, **parts: Any) -> None:
    file = run / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | parts))


def plant(folder: Path, mark: Path) -> None:
    """Write hostile files, as in a downloaded folder."""
    folder.mkdir(exist_ok=True)
    (folder / "theirs.py").write_text(THEIRS.format(mark=str(mark)))
    (folder / "hubconf.py").write_text(f"def touch(): open({str(mark)!r}, 'w').close()")
    with (folder / "touch.pkl").open("wb") as file:
        pickle.dump({"state_dict": call_shell(mark)}, file)


def touching(mark: Path, folder: Path) -> dict[str, Node]:
    """Return nodes that create the mark if they are built, or only imported."""
    shell, code = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    evaluates = {"_target_": "builtins.eval", "_args_": [code]}
    unpickled = {"f": str(folder / "touch.pkl"), "weights_only": False}
    return {
        "a shell": {"_target_": "os.system", "command": shell},
        "a process": {"_target_": "subprocess.run", "args": ["touch", str(mark)]},
        "eval": evaluates,
        "exec": {"_target_": "builtins.exec", "_args_": [code]},
        "torch's shell": {"_target_": "torch.utils.collect_env.run", "command": shell},
        "torch.hub": {"_target_": "torch.hub.load", "repo_or_dir": str(folder), "model": "touch", "source": "local"},
        "torch.load": {"_target_": "torch.load", **unpickled},
        "in torch.nn by name": {"_target_": "torch.nn.modules.module.torch.load", **unpickled},
        "in torch.optim by name": {"_target_": "torch.optim.optimizer.torch.utils.collect_env.run", "command": shell},
        "lightning's os": {"_target_": "lightning.pytorch.callbacks.model_checkpoint.os.system", "command": shell},
        "an import": {"_target_": "torch.nn.functional.importlib.import_module", "name": "theirs"},
        "hydra's call": {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": shell}},
        "a class of theirs": {"_target_": "theirs.Net"},
        "a function of theirs": {"_target_": "theirs.make"},
        "in a list": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", "command": shell}]},
        "deep inside": {
            "_target_": "torch.nn.ModuleDict",
            "modules": {"x": {"_target_": "torch.nn.ModuleList", "modules": [evaluates]}},
        },
        "half built": {
            "_target_": "torch.nn.Sequential", "_args_": [{"_target_": "theirs.make", "_partial_": True}],
        },
    }  # fmt: skip


NAMES = tuple(touching(Path(), Path()))
# Refused, too, without a payload to show what they would do.
OTHERS = (
    "subprocess.Popen", "pickle.load", "hydra.utils.get_method", "hydra.utils.instantiate", "torch.jit.load",
    "torch.package.PackageImporter", "torch.utils.cpp_extension.load", "torch.utils.benchmark.Timer",
    "torch.serialization.load", "torch.fx.GraphModule", "torch.nn.functional.relu", "torch.nn", "torch.nn.Module.to",
    "torch.nn.modules.module.functools.partial", "torch.nn.parallel.distributed._DDPSink",
    "torch.distributed.nn.RemoteModule", "torch.ao.quantization.QuantStub", "torchvision.models.resnet18",
    "torchvision.models.get_model", "torchvision.models.feature_extraction.DualGraphModule",
    "torchmetrics.multimodal.CLIPScore", "torchmetrics.text.BERTScore", "torchmetrics.functional.accuracy",
    "lightning.pytorch.cli.LightningCLI", "lightning.pytorch.Trainer", "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.demos.boring_classes.BoringModel.load_from_checkpoint",
    "lightning.pytorch.demos.mnist_datamodule.MNISTDataModule", "lightning.fabric.utilities.cloud_io._load",
    "litlab.__main__.main", "litlab.training.checkpoint_io.read_checkpoint", "litlab.config.targets.import_target",
    "litlab.optim.schedules.constant", "litlab.tasks.image_classifier.ImageClassifier",
    "..os.system", "os", "", None, 5, ["os.system"], "torch.nn.Linear\n",
)  # fmt: skip
