"""Parameter groups by name and by shape."""

import pytest
from torch import nn
from torch.optim import SGD

from litlab.errors import UserError
from litlab.optim.parameter_groups import decayed_names, parameter_groups


def test_norms_and_biases_are_not_decayed() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    network[3].bias.requires_grad_(False)
    groups = {
        group["name"]: group
        for group in SGD(parameter_groups(network, decayed_names(network)), lr=1, weight_decay=0.5).param_groups
    }
    assert [id(parameter) for parameter in groups["decay"]["params"]] == [id(network[0].weight), id(network[3].weight)]
    assert [id(parameter) for parameter in groups["no_decay"]["params"]] == [
        id(parameter) for parameter in (network[0].bias, network[1].weight, network[1].bias)
    ]
    assert (groups["decay"]["weight_decay"], groups["no_decay"]["weight_decay"]) == (0.5, 0.0)


def test_an_empty_group_is_left_out() -> None:
    assert [group["name"] for group in parameter_groups(nn.Linear(2, 2, bias=False), ["weight"])] == ["decay"]


def test_no_trainable_parameters_are_refused() -> None:
    with pytest.raises(UserError, match="Linear has no trainable parameters"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), [])


def test_flattened_parameters_are_grouped_by_name() -> None:
    """FSDP replaces parameters by flat shards, and puts a prefix into their names."""
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    decayed = decayed_names(network)
    flat = nn.Module()
    flat._fsdp_wrapped_module = nn.Module()
    for index, layer in enumerate(network):
        shard = nn.Module()
        for name, parameter in layer.named_parameters():
            shard.register_parameter(name, nn.Parameter(parameter.detach().flatten()))
        flat._fsdp_wrapped_module.add_module(str(index), shard)
    sizes = {
        group["name"]: [parameter.numel() for parameter in group["params"]] for group in parameter_groups(flat, decayed)
    }
    assert sizes == {"decay": [6, 4], "no_decay": [2, 2]}
