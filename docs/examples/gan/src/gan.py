"""Generative adversarial network with two optimizers (Goodfellow et al. 2014; hinge loss of Lim and Ye 2017)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from litlab.data.loader import Batch

NUM_DIRECTIONS = 128  # of the sliced Wasserstein distance


class Generator(nn.Sequential):
    """Images from noise, normalized as the data set's."""

    def __init__(
        self,
        *,
        latent: int,
        width: int,
        image_shape: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        c, h, w = image_shape
        super().__init__(
            nn.Linear(latent, 4 * width * (h // 4) * (w // 4)),
            nn.Unflatten(1, (4 * width, h // 4, w // 4)),
            *_upsampled(4 * width, 2 * width),
            *_upsampled(2 * width, width),
            nn.Conv2d(width, c, 3, padding=1),
            nn.Sigmoid(),
        )
        self.latent = latent
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, noise: Tensor) -> Tensor:
        """Compute images, `b c h w`, of noise, `b latent`."""
        return (super().forward(noise) - self.mean) / self.std


class Discriminator(nn.Sequential):
    """One score for each image: high for real ones."""

    def __init__(self, *, width: int, image_shape: tuple[int, int, int]) -> None:
        c, h, w = image_shape
        layers = [nn.Conv2d(c, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 4, 2, 1)]
        size = 2 * width * (h // 4) * (w // 4)
        super().__init__(*layers, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(size, 1))


def _upsampled(num_in: int, num_out: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.Conv2d(num_in, num_out, 3, padding=1), nn.BatchNorm2d(num_out), nn.ReLU()]


class GAN(LightningModule):
    """Train a generator against a discriminator, each with an optimizer of its own.

    Args:
        generator: Network that makes images from noise; its attribute `latent` is the size of the noise.
        discriminator: Network that scores images.
        generator_optimizer: Makes the optimizer of the generator.
        discriminator_optimizer: Makes that of the discriminator.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: Callable[..., Optimizer],
        discriminator_optimizer: Callable[..., Optimizer],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self._make_optimizers = generator_optimizer, discriminator_optimizer

    def configure_optimizers(self) -> list[Optimizer]:
        """Make the two optimizers."""
        networks = self.generator, self.discriminator
        pairs = zip(self._make_optimizers, networks, strict=True)
        return [make(network.parameters()) for make, network in pairs]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Step the discriminator, then the generator."""
        generator_optimizer, discriminator_optimizer = self.optimizers()
        real = batch.images[: batch.num_valid]
        fake = self.generator(torch.randn(len(real), self.generator.latent, device=self.device))

        losses = F.relu(1 - self.discriminator(real)), F.relu(1 + self.discriminator(fake.detach()))
        discriminator_loss = losses[0].mean() + losses[1].mean()
        discriminator_optimizer.zero_grad()
        self.manual_backward(discriminator_loss)
        discriminator_optimizer.step()

        generator_loss = -self.discriminator(fake).mean()
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        self.log_dict({"train/generator_loss": generator_loss, "train/discriminator_loss": discriminator_loss})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the sliced Wasserstein distance between real and generated images, both of this batch's size."""
        self._log_distance("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the distance to the test images."""
        self._log_distance("test", batch, batch_idx)

    def _log_distance(self, split: str, batch: Batch, batch_idx: int) -> None:
        real = batch.images[: batch.num_valid]
        if len(real) == 0:  # on this rank
            return
        random = torch.Generator().manual_seed(batch_idx)  # the same noise and directions in each validation
        noise = torch.randn(len(real), self.generator.latent, generator=random)
        directions = F.normalize(torch.randn(real[0].numel(), NUM_DIRECTIONS, generator=random), dim=0).to(self.device)
        fake = self.generator(noise.to(self.device))
        sorted_real, sorted_fake = ((images.flatten(1) @ directions).sort(dim=0).values for images in (real, fake))
        distance = (sorted_real - sorted_fake).abs().mean()
        self.log(f"{split}/distance", distance, on_epoch=True, batch_size=len(real), sync_dist=True)
