"""Self-supervised pretraining: predict by how many quarter turns an image was rotated (Gidaris et al. 2018)."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from litlab.data.loader import Batch
from litlab.models.resnet import ResNet18

NUM_TURNS = 4


def resnet18(*, width: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build litlab's ResNet-18 with one logit for each turn."""
    return ResNet18(num_classes=NUM_TURNS, image_shape=image_shape, width=width)


class RotationPretraining(LightningModule):
    """Train a network to tell the four rotations of square images from each other; labels are not used.

    Args:
        network: From images to four logits.
        optimizer: Makes an optimizer from parameters.
        schedule: Makes a schedule from an optimizer and the number of steps.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., torch.optim.lr_scheduler.LRScheduler],
    ) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.val_accuracy = MulticlassAccuracy(NUM_TURNS, average="micro")
        self.test_accuracy = MulticlassAccuracy(NUM_TURNS, average="micro")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss over all rotations of a batch."""
        logits, turns = self._rotate(batch)
        loss = functional.cross_entropy(logits, turns)
        self.log("train/loss", loss, batch_size=len(turns))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the fraction of rotations that are predicted."""
        self.val_accuracy(*self._rotate(batch))
        self.log("val/accuracy", self.val_accuracy, batch_size=batch.num_valid)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Do the same for the test images."""
        self.test_accuracy(*self._rotate(batch))
        self.log("test/accuracy", self.test_accuracy, batch_size=batch.num_valid)

    def configure_optimizers(self) -> dict[str, object]:
        """Make optimizer and schedule of the config; the schedule is stepped after each step."""
        optimizer = self.make_optimizer(self.parameters())
        schedule = self.make_schedule(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rotate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the logits of each rotation of the real images, and the number of quarter turns."""
        images = batch.images[: batch.num_valid]
        rotated = torch.cat([images.rot90(turns, dims=(2, 3)) for turns in range(NUM_TURNS)])
        turns = torch.arange(NUM_TURNS, device=images.device).repeat_interleave(len(images))
        return self.network(rotated), turns
