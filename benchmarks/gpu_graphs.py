"""Steps of a small network on a GPU, against the same step as one CUDA graph: the most that such a setting could gain.

litlab has no such setting. A graph repeats the addresses and the Python numbers of the step it was captured from, so
learning rates, gradient scales and clipping would have to become tensors, a resume would have to copy into captured
memory, and no callback could run between backward pass and optimizer. These rows show what that would be worth.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bare import BareLoop, Contender, SideBySide
from benchmarks.harness import Row
from benchmarks.runs import Train, in_worker
from benchmarks.settings import Settings
from benchmarks.training import BY_HAND, epochs_of, throughput_row
from litlab.data.module import ImageDataModule

GRAPH = "the step as a CUDA graph"
_BESIDE = "+callbacks.side_by_side._target_=benchmarks."
_CONTENDERS = {BY_HAND: "bare.SideBySide", GRAPH: "gpu_graphs.BesideGraph"}
BATCHES = {4: 1, 128: 4}  # batch size -> factor by which its epochs have fewer steps
_NUM_WARMUP_STEPS = 3  # before a capture, as torch's documentation has it
Step = Callable[[], None]


def capture(step: Step) -> Step:
    """Capture a step, and return what replays it. It is run some times before; the capture itself computes nothing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_NUM_WARMUP_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay  # type: ignore[no-any-return]


class GraphLoop(BareLoop):
    """Loop by hand that replays forward pass, backward pass and optimizer; batches are drawn and augmented as before.

    All batches have to be equally large, and the learning rate has to be constant.

    Args:
        capture: Makes the function that replays a step.
    """

    def __init__(
        self,
        network: nn.Module,
        data: ImageDataModule,
        config: dict[str, Any],
        capture: Callable[[Step], Step] = capture,
    ) -> None:
        super().__init__(network, data, config)
        self._capture = capture
        self._replay: Step | None = None

    def steps(self, epoch: int) -> Iterator[None]:
        self.loader.sampler.set_epoch(epoch)
        for batch in self.loader:
            batch = self.data.transfer_batch_to_device(batch, self.device, 0)
            images, labels = self.data.transform_batch(batch, epoch=epoch)[:2]
            if self._replay is None:
                self._replay = self._captured(images, labels)
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._replay()
            yield

    def _captured(self, images: Tensor, labels: Tensor) -> Step:
        """Capture a step on memory of its own; undo the steps that are made for it."""
        self._images, self._labels = images.clone(), labels.clone()
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        replay = self._capture(self._step)
        self.network.load_state_dict(before)
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()
        return replay

    def _step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self._images), self._labels).backward()
        self.optimizer.step()


class BesideGraph(SideBySide):
    """Side-by-side training with `GraphLoop`."""

    def contenders(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> dict[str, Contender]:
        return {"bare": GraphLoop(deepcopy(network), data, config)}


def rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Measure litlab's training of the tutorial CNN against both loops, for each batch size."""
    return [
        throughput_row(
            f"GPU: tutorial CNN, batch {batch_size}",
            epochs_of(settings, train, *overrides(settings, batch_size), f"{_BESIDE}{contender}"),
            against=against,
        )
        for batch_size in BATCHES
        for against, contender in _CONTENDERS.items()
    ]


def overrides(settings: Settings, batch_size: int) -> tuple[str, ...]:
    """Return the settings of a run in full batches with a constant learning rate."""
    num_train = batch_size * (settings.num_steps // BATCHES[batch_size])
    return (
        "data=shapes", f"data.num_train={num_train + 40}", "data.num_test=40", "data.val_size=40", "trainer=gpu",
        f"data.batch_size={batch_size}", "model=cnn", "schedule=constant",
    )  # fmt: skip
