"""Run directory of a finished run, made without training."""

import json
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import yaml
from torch import Tensor, nn

from litlab.data.dataset_info import DatasetInfo
from litlab.data.preprocess import Preprocess
from litlab.data.transforms import ImageTransforms
from litlab.inference.predictor import Predictor
from litlab.models.cnn import CNN
from litlab.tasks.tta import TTA
from litlab.training.checkpoint_io import AtomicCheckpointIO

SIZE = 20
CLASS_NAMES = ("cat", "dog", "eel")
CNN_NODE = {"_target_": "litlab.models.cnn.CNN", "widths": [3, 4], "hidden": [5]}
CONFIG = """
format: 2
name: test
seed: 0
threads: 1
objective: null
checkpoint: {every_steps: null, every_minutes: null}
study: {name: null}
data: {_target_: user_data.Data}
model: null
task:
  _target_: litlab.tasks.image_classifier.ImageClassifier
  metrics: {}
  loss: null
  class_weights: null
  freeze: []
  freeze_after_epochs: 0
  label_smoothing: 0.0
  channels_last: false
  compile: false
  test_time_flip: false
  test_time_shift: 0
  test_time_margin: null
optimizer: null
schedule: null
callbacks: null
logger: {remote: {_target_: user_logger.Logger, token: "${oc.env:A_VARIABLE_THAT_IS_NOT_SET}"}}
trainer: {_target_: user_trainer.Trainer, accelerator: cpu, devices: 1, num_nodes: 1}
"""


def make_info(channels: int = 3, size: int = SIZE) -> DatasetInfo:
    return DatasetInfo(
        name="animals",
        class_names=CLASS_NAMES,
        image_shape=(channels, size, size),
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.4)[:channels],
        statistics_source="the test",
        fingerprint="0",
        num_train=1,
        num_val=1,
        num_test=1,
    )


def make_network(channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return CNN(num_classes=3, image_shape=(channels, SIZE, SIZE), widths=(3, 4), hidden=(5,)).eval()


def make_predictor(network: nn.Module, info: DatasetInfo, tta: TTA | None = None) -> Predictor:
    preprocess = Preprocess(image_size=info.image_shape[1:], mean=info.mean, std=info.std)
    return Predictor(
        network=network,
        preprocess=preprocess,
        dataset_info=info,
        tta=tta or TTA(flip=False, shift=0),
        transforms=ImageTransforms([], seed=0, setting="data.transforms.eval"),
    )


def make_run(path: Path, network: nn.Module, node: dict[str, Any], info: DatasetInfo) -> Path:
    """Create a run directory with what `litlab.load` reads; the network is its last checkpoint."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"model": node}))
    (path / "dataset.json").write_text(json.dumps(info.to_dict()))
    (path / "provenance.json").write_text(json.dumps({"project": str(path.parent)}))
    save(network, path / "checkpoints" / "last.ckpt")
    return path


def save(network: nn.Module, path: Path) -> None:
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state}, path)


def as_image(pixels: Tensor) -> PIL.Image.Image:
    return PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy())
