"""Parameter groups of an optimizer: weight decay for weights, none for norms and biases."""

from collections.abc import Collection
from typing import Any

from torch import nn

from litlab.errors import UserError

_FSDP = "_fsdp_wrapped_module."  # what it puts into the names of parameters


def decayed_names(network: nn.Module) -> frozenset[str]:
    """The parameters that weight decay applies to: all but norms and biases, which have fewer than two axes."""
    return frozenset(name for name, parameter in network.named_parameters() if parameter.ndim >= 2)


def parameter_groups(network: nn.Module, decayed: Collection[str]) -> list[dict[str, Any]]:
    """The trainable parameters in two named groups: `decay`, for those whose names are in `decayed`, and `no_decay`.

    The first group takes the weight decay of the optimizer's config, the second takes none. An empty group is left out.
    Take the names before a strategy wraps the network: FSDP makes flat shards, with one axis, of all parameters.

    Raises:
        UserError: nothing is trainable.
    """
    named = [(name.replace(_FSDP, ""), each) for name, each in network.named_parameters() if each.requires_grad]
    if not named:
        raise UserError(
            f"{type(network).__name__} has no trainable parameters, so there is nothing to optimize: "
            "at least one of its parameters must have requires_grad=True"
        )
    groups: list[dict[str, Any]] = [
        {"params": [each for name, each in named if name in decayed], "name": "decay"},
        {"params": [each for name, each in named if name not in decayed], "name": "no_decay", "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
