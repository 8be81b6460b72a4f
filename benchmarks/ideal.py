"""The least that the jobs of a multirun can cost: a loop by hand on one thread, job after job, nothing kept.

`python -m benchmarks.ideal FOLDER EPOCHS LR:SEED ...`; a machine with two cores runs two of these.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.in_memory import Split, augmented, load, statistics
from litlab.models.cnn import CNN

BATCH_SIZE = 128


class Loop:
    """Trains, validates each epoch and tests; the weights are never saved."""

    def __init__(self, folder: Path) -> None:
        self.train, self.val, self.test = (load(folder, split) for split in ("train", "val", "test"))
        self.mean, self.std = statistics(folder)

    def run(self, *, lr: float, seed: int, epochs: int) -> float:
        """Train one job and return the accuracy on the test images."""
        torch.manual_seed(seed)
        network = CNN(num_classes=10, image_shape=(3, 32, 32), widths=(6, 16), hidden=(120, 84))
        optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        total_steps = epochs * -(-len(self.train[1]) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=lr, total_steps=total_steps, pct_start=0.25, cycle_momentum=False
        )
        for _ in range(epochs):
            for chosen in torch.randperm(len(self.train[1])).split(BATCH_SIZE):
                images, labels = (part[chosen] for part in self.train)
                optimizer.zero_grad()
                loss = F.cross_entropy(network(self._normalised(augmented(images))), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            self._accuracy(network, self.val)
        return self._accuracy(network, self.test)

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, split: Split) -> float:
        correct = 0
        for images, labels in zip(*(part.split(BATCH_SIZE) for part in split), strict=True):
            correct += int((network(self._normalised(images)).argmax(1) == labels).sum())
        return correct / len(split[1])

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


def main() -> None:
    folder, epochs, *points = sys.argv[1:]
    torch.set_num_threads(1)
    loop = Loop(Path(folder))
    for point in points:
        lr, _, seed = point.partition(":")
        print(f"{point} {loop.run(lr=float(lr), seed=int(seed), epochs=int(epochs)):.4f}", flush=True)


if __name__ == "__main__":
    main()
