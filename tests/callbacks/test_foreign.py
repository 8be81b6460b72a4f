"""Other LightningModules and loggers."""

from collections.abc import Iterator

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from support.small_fit import CLASS_NAMES, NORMALISATION, Rows, make_trainer
from torch import Tensor

from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.images import TrainingImages, WorstMistakes
from litlab.callbacks.training_log import TrainingLog

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is smaller than the logging interval
]


class Loader(list[Tensor]):
    """Not a plain list, which Lightning would take for several loaders."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_other_modules_and_loggers_are_left_alone() -> None:
    rows = Rows()
    callbacks = [
        TrainingLog(),
        TrainingImages(num_images=4, **NORMALISATION),
        WorstMistakes(num_images=4, **NORMALISATION),
        ConfusionMatrix(class_names=CLASS_NAMES),
    ]
    trainer = make_trainer([rows], callbacks, max_epochs=1, log_every_n_steps=1, limit_train_batches=2)
    model = BoringModel()
    loader = [torch.randn(2, 32)]
    trainer.fit(model, Loader(loader * 2), Loader(loader))
    trainer.test(model, Loader(loader), verbose=False)
    assert rows.values("lr") == {1: 0.1, 2: 0.1}
    assert rows.values("train/loss") == {}
