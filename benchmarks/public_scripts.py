"""The public records that `speedrun` is compared with: where to get the scripts, their versions, images for them.

Nothing of the scripts is part of litlab. The user downloads them into a folder, and they are run as they are.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litlab.data.module import ImageDataModule
from litlab.errors import UserError

EVALUATION = "eval"  # in the column `epoch` of the row that a script prints last
_MARKERS = ("class CifarNet", "def main(run, model)", "def print_columns", "tta_val_acc", "time_seconds")


@dataclass(frozen=True)
class PublicScript:
    """Script that trains a network on CIFAR-10 to 94 % in seconds.

    Attributes:
        file: Name of its file.
        source: Address to get it from.
        versions: Name of each version that these facts were read from, by the SHA-256 of the file.
        counted: Parts of a run that its printed seconds contain.
        not_counted: Parts that they leave out.
    """

    file: str
    source: str
    versions: Mapping[str, str]
    counted: str
    not_counted: str

    @property
    def name(self) -> str:
        return Path(self.file).stem


SCRIPTS = (
    PublicScript(
        "airbench94_muon.py",
        "https://github.com/KellerJordan/cifar10-airbench",
        {"704e29251a5207d8aed8a35adf13f772ff386b90a712aaddc2a28854385b536e": "096d14d of 2 March 2025"},
        "whitening of 5,000 images; 8 epochs with normalization, padding, crops and order of the images; test with six "
        "views of each image (CUDA events)",
        "compilation and choice of kernels, in a run before with random labels; images to the GPU, initial weights, "
        "optimizers; a test without views after each epoch",
    ),
    PublicScript(
        "cifar10_speedrun.py",
        "https://github.com/hiverge/cifar10-speedrun",
        {"d1e1f6991cc3e1758c0bbc0e728c86a4b3119dd42a9233075b2edb9735d0ba91": "828bcd7 of 26 September 2025"},
        "whitening of 960 images; 7.59 epochs with normalization, padding, crops, colors and order of the images; test "
        "with six views of the least certain quarter of the images, one of the others (CUDA events)",
        "compilation and choice of kernels, in a run before with random images; images to the GPU, initial weights, "
        "optimizers; accuracies on the training images and without views",
    ),
)


@dataclass(frozen=True)
class FoundScript:
    """Script in the user's folder.

    Attributes:
        script: Facts on it.
        path: Its file.
        version: Name of its version, or that it is another one than the facts were read from.
    """

    script: PublicScript
    path: Path
    version: str


def find_scripts(folder: Path) -> tuple[list[FoundScript], list[str]]:
    """Find the scripts in a folder, or in clones of their repositories in it.

    Returns:
        The scripts, and a sentence for each that is missing.

    Raises:
        UserError: There is no such folder, it has none of the scripts, or a file of that name is something else.
    """
    if not folder.is_dir():
        raise UserError(f"--scripts {folder}: no such folder. {_sources(SCRIPTS)}")
    paths = [(script, path) for script in SCRIPTS for path in _candidates(folder, script)[:1]]
    if not paths:
        raise UserError(f"--scripts {folder}: none of the scripts is there. {_sources(SCRIPTS)}")
    found = [FoundScript(script, path, _version(script, path)) for script, path in paths]
    missing = [script for script in SCRIPTS if script not in [entry.script for entry in found]]
    return found, [f"{script.name}: left out. {_sources([script])}" for script in missing]


def _candidates(folder: Path, script: PublicScript) -> list[Path]:
    return [path for path in (folder / script.file, *sorted(folder.glob(f"*/{script.file}"))) if path.is_file()]


def _sources(scripts: Sequence[PublicScript]) -> str:
    return "; ".join(f"Put {script.file} from {script.source} into the folder" for script in scripts)


def _version(script: PublicScript, path: Path) -> str:
    """Return the name of the version of a file.

    Raises:
        UserError: It has not the functions by which a script is run.
    """
    content = path.read_bytes()
    text = content.decode(errors="replace")
    if lacking := [marker for marker in _MARKERS if marker not in text]:
        raise UserError(
            f"{path} is not the script of {script.source}, or a version that can't be measured: expected "
            f"{', '.join(map(repr, lacking))} in it"
        )
    digest = hashlib.sha256(content).hexdigest()
    return script.versions.get(digest, f"another version, SHA-256 {digest[:12]}; what it counts was not checked")


def save_images(data: ImageDataModule, folder: Path) -> None:
    """Write litlab's images where the scripts look for those that they download otherwise.

    Args:
        data: Data module whose official training and test images are written, all of them in stored order.
        folder: Working directory of the scripts; gets `cifar10/train.pt` and `cifar10/test.pt`, each with images
            (uint8 n h w c), labels (int64 n) and class names.
    """
    arrays = data.arrays
    (folder / "cifar10").mkdir()
    splits = {"train": (arrays.train_images, arrays.train_labels), "test": (arrays.test_images, arrays.test_labels)}
    for name, (images, labels) in splits.items():
        content = {"images": _channels_last(images), "labels": labels.long(), "classes": list(data.info.class_names)}
        torch.save(content, folder / "cifar10" / f"{name}.pt")


def _channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).contiguous()


def parse_table(printed: str) -> list[dict[str, str]]:
    """Read the table that a script prints: a dictionary for each row, by the names in its first row."""
    rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in re.split(r"[\r\n]+", printed)
        if line.startswith("|")
    ]
    header, *values = rows or [[]]
    return [dict(zip(header, row, strict=True)) for row in values]


def read_outcome(printed: str) -> dict[str, float]:
    """Read accuracy (0 to 1) and counted seconds from the table that a script printed for one run.

    Raises:
        ValueError: There is no row of the final test.
    """
    rows = [row for row in parse_table(printed) if row.get("epoch") == EVALUATION]
    if not rows:
        raise ValueError(f"the script printed no row of its final test, but:\n{printed}")
    return {"accuracy": float(rows[-1]["tta_val_acc"]), "seconds": float(rows[-1]["time_seconds"])}
