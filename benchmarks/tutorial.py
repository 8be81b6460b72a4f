"""The classic tutorial in plain torch and torchvision, as one writes it after PyTorch's "Training a Classifier".

`python -m benchmarks.tutorial FOLDER`: images as `benchmarks.in_memory` (or litlab's cache) stores them, one JSON line
of seconds and accuracy. Batches of 4, two loader workers, two epochs; it knows nothing of litlab or Lightning.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

BATCH_SIZE, NUM_WORKERS, NUM_EPOCHS, EVERY = 4, 2, 2, 2000


class Images(Dataset[tuple[Tensor, int]]):
    """Data set like torchvision's CIFAR10: arrays in memory, each image converted to PIL and transformed on access."""

    def __init__(self, folder: Path, split: str) -> None:
        self.pixels = np.load(folder / f"{split}_images.npy").transpose(0, 2, 3, 1).copy()  # n h w c
        self.labels = np.load(folder / f"{split}_labels.npy").tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x))).flatten(1)
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc3(x)  # type: ignore[no-any-return]


def train(net: Net, loader: "DataLoader[Any]") -> None:
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for epoch in range(NUM_EPOCHS):
        running_loss = 0.0
        for number, (images, labels) in enumerate(loader, start=1):
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if number % EVERY == 0:
                print(f"[{epoch + 1}, {number:5d}] loss: {running_loss / EVERY:.3f}", file=sys.stderr)
                running_loss = 0.0


def accuracy(net: Net, loader: "DataLoader[Any]") -> float:
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = net(images).argmax(dim=1)
            total += len(labels)
            correct += int((predicted == labels).sum())
    return correct / total


def main(folder: Path, seed: int) -> dict[str, float]:
    """Train and test; return the accuracy, the seconds of training, and those of all but the imports."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    loaders = [
        DataLoader(Images(folder, split), batch_size=BATCH_SIZE, shuffle=split == "train", num_workers=NUM_WORKERS)
        for split in ("train", "test")
    ]
    net = Net()
    began = time.perf_counter()
    train(net, loaders[0])
    training = time.perf_counter() - began
    reached = accuracy(net, loaders[1])
    return {"accuracy": reached, "training": training, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
