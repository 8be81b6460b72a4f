"""Options of ImageClassifier: memory format, test-time augmentation, mixed targets, compilation."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.small_fit import Batches, Rows, make_trainer
from torch import Tensor, nn
from torch._dynamo.utils import counters

from litlab.data.loader import Partners
from litlab.errors import UserError
from litlab.tasks.image_classifier import ImageClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is smaller than the logging interval
]


def make_task(**changes: Any) -> ImageClassifier:
    """Whose gradients are sums that other layouts and compilers add up in other orders, so that they can differ."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
    arguments: dict[str, Any] = {
        "network": network,
        "optimizer": partial(torch.optim.SGD, lr=0.05),
        "schedule": None,
        "num_classes": 6,
        "label_smoothing": 0.0,
        "channels_last": False,
        "compile": False,
        "test_time_flip": False,
        "test_time_shift": 0,
        "metrics": {},
    }
    return ImageClassifier(**(arguments | changes))


def fitted(task: ImageClassifier, num_images: int = 40, **changes: Any) -> dict[str, Tensor]:
    make_trainer([Rows()], [], **({"max_epochs": 2} | changes)).fit(task, Batches(num_images), Batches(8))
    return task.state_dict()


def test_channels_last_computes_the_same_and_is_saved_the_same() -> None:
    plain, switched = make_task(), make_task(channels_last=True)
    seen: list[Tensor] = []
    switched.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    expected, found = fitted(plain), fitted(switched)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert switched.network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert switched.memory_format == torch.channels_last
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def _moved(images: Tensor, pixels: int) -> Tensor:
    """Pixel by pixel: what lies outside is reflected at the border, which comes once."""
    size = images.shape[2]
    places = [-k if k < 0 else 2 * (size - 1) - k if k >= size else k for k in range(-pixels, size - pixels)]
    return images[:, :, places][:, :, :, places]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_views_are_averaged_in_evaluation_alone(flip: bool, shift: int) -> None:
    task, network = make_task(test_time_flip=flip, test_time_shift=shift), make_task().network.eval()
    (batch,) = Batches(8)
    rows = Rows()
    make_trainer([rows], []).validate(task, Batches(8), verbose=False)

    def once(images: Tensor) -> Tensor:
        return (network(images) + network(images.flip(3))) / 2 if flip else network(images)

    moved = [once(_moved(batch.images, pixels)) for pixels in (shift, -shift)]
    logits = once(batch.images) / 2 + sum(moved) / 4
    assert rows.values("val/loss")[0] == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-6)
    assert torch.allclose(logits, network(batch.images), rtol=1e-3) == (not flip and not shift)
    task.train()
    assert torch.equal(task(batch.images), make_task()(batch.images))


def test_images_are_not_moved_by_their_own_size() -> None:
    with pytest.raises(UserError, match="test_time_shift=32 must be less than the images' size, 16x32"):
        make_task(test_time_shift=32).eval()(torch.zeros(1, 3, 16, 32))


def test_the_loss_of_mixed_images_is_that_of_soft_labels() -> None:
    task = make_task(label_smoothing=0.1)
    task.trainer = make_trainer([], [])
    (batch,) = Batches(7)  # seven real rows of eight
    assert batch.num_valid == 7
    partners = Partners(batch.images, batch.labels.flip(0), batch.indices.flip(0), torch.linspace(0, 1, 8))
    loss = task.training_step(batch._replace(partners=partners), 0)
    share = torch.linspace(0, 1, 8)[:, None]
    soft = share * F.one_hot(batch.labels, 6) + (1 - share) * F.one_hot(batch.labels.flip(0), 6)
    soft = 0.9 * soft + 0.1 / 6
    expected = F.cross_entropy(make_task()(batch.images)[:7], soft[:7])
    torch.testing.assert_close(loss, expected)
    assert task.train_metrics.compute()["loss"] == pytest.approx(expected.item(), rel=1e-6)
    own = (make_task()(batch.images)[:7].argmax(dim=1) == batch.labels[:7]).float().mean()
    assert task.train_metrics.compute()["accuracy"] == own


def test_compiled_training_is_the_same_with_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as always, but without C++ for it, which takes ten seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    states = {}
    for switched in (False, True):
        states[switched] = fitted(make_task(compile=switched, channels_last=True, test_time_flip=True), max_epochs=3)
    assert counters["stats"]["unique_graphs"] == 1  # not for validation, nor anew in each epoch
    assert list(states[True]) == list(states[False])
    for name, value in states[False].items():
        torch.testing.assert_close(states[True][name], value, rtol=1e-4, atol=1e-6)


def test_a_missing_compiler_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/such/compiler"))
    task = make_task(compile=True)
    with pytest.raises(UserError, match=r"task.compile=true needs a working C\+\+ compiler on a CPU: install"):
        fitted(task)
    assert task.trainer.global_step == 0
