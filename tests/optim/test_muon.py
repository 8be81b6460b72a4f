"""Muon: what it orthogonalizes, how far filters move, and that all else is plain SGD."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from litlab.errors import UserError
from litlab.optim.muon import Muon, orthogonalize

SETTINGS: dict[str, Any] = {
    "lr": 0.2, "momentum": 0.6, "num_iterations": 5,
    "linear_lr": 0.3, "others_lr": 2.0, "sgd_momentum": 0.85, "weight_decay": 0.01,
}  # fmt: skip


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))


def take_steps(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.randint(0, 5, (6,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_orthogonalize_keeps_singular_vectors_and_brings_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalize(matrix, 5)
    values = torch.linalg.svdvals(result)
    strong = s > 0.05 * s[0]  # five rounds don't lift the very smallest
    assert values[strong].min() > 0.6
    assert values.max() < 1.25
    in_old_basis = u.T @ result @ v.T
    torch.testing.assert_close(in_old_basis, in_old_basis.diagonal().diag(), atol=1e-5, rtol=0)
    assert not torch.allclose(values, s, atol=0.1)


def test_orthogonalize_keeps_zeros() -> None:
    assert orthogonalize(torch.zeros(4, 9), 5).abs().max() == 0


def test_filters_have_a_fixed_norm_and_step_size() -> None:
    network = make_network()
    filters = network.get_parameter("0.weight")
    optimizer = Muon(network.parameters(), **SETTINGS)
    before = filters.detach().clone()
    take_steps(network, optimizer, 1)
    scaled = before * (8**0.5 / before.norm())
    moved = torch.linalg.svdvals((filters.detach() - scaled).flatten(1)) / SETTINGS["lr"]
    assert moved.max() < 1.25
    assert moved.median() > 0.6


def test_other_parameters_are_updated_by_nesterov_sgd() -> None:
    network, twin = make_network(), make_network()
    filters = twin.get_parameter("0.weight")
    take_steps(network, Muon(network.parameters(), **SETTINGS | {"lr": 1e-12}), 4)
    filters.data = filters.data * (8**0.5 / filters.data.norm())  # as Muon scales it: the norm behind it hides that
    nesterov: dict[str, Any] = {"momentum": 0.85, "nesterov": True}
    groups = [  # each step shrinks the weights by lr * weight_decay = 0.01
        {
            "params": [parameter for parameter in twin.parameters() if parameter.ndim == 1],
            "lr": 2.0,
            "weight_decay": 5e-3,
        },
        {"params": [twin.get_parameter("3.weight")], "lr": 0.3, "weight_decay": 0.01 / 0.3},
        {"params": [filters], "lr": 0.0},
    ]
    take_steps(twin, SGD(groups, lr=0.1, **nesterov), 4)
    for value, expected in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, expected, atol=2e-4, rtol=2e-3)


def test_schedule_multiplies_all_groups_by_one_factor() -> None:
    optimizer = Muon([{"params": list(make_network().parameters()), "name": "decay"}], **SETTINGS)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"filters": 0.2, "linear": 0.3, "others": 2.0}
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert schedule.get_last_lr() == [0.1, 0.15, 1.0]


def test_state_dict_continues_exactly() -> None:
    """A new optimizer without the state does not."""
    weights = []
    for state in ("kept", "saved", "lost"):
        network = make_network()
        optimizer = Muon(network.parameters(), **SETTINGS)
        take_steps(network, optimizer, 3)
        if state != "kept":
            saved, optimizer = optimizer.state_dict(), Muon(network.parameters(), **SETTINGS)
        if state == "saved":
            optimizer.load_state_dict(saved)
        take_steps(network, optimizer, 2)
        weights.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_networks_without_filters_are_refused() -> None:
    with pytest.raises(UserError, match=r"no trainable parameter has four axes .*use optimizer=sgd or adamw"):
        Muon(nn.Linear(3, 3).parameters(), **SETTINGS)
