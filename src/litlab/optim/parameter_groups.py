"""Parameter groups of an optimizer: weight decay for weights, none for norms and biases."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from litlab.errors import UserError

_FSDP_PREFIX = "_fsdp_wrapped_module."  # in names of parameters


def decayed_names(network: nn.Module) -> frozenset[str]:
    """Return the names of the parameters with weight decay: all but norms and biases, which have at most one axis."""
    return frozenset(name for name, parameter in network.named_parameters() if parameter.ndim >= 2)


def takes_one_group(make_optimizer: Callable[..., Optimizer]) -> bool:
    """Return True for torch's LBFGS, which has one direction for all parameters and no weight decay.

    Args:
        make_optimizer: Class of an optimizer, or a function with the class as its attribute `func`.
    """
    target = getattr(make_optimizer, "func", make_optimizer)
    return inspect.isclass(target) and issubclass(target, LBFGS)


def parameter_groups(network: nn.Module, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Sort the trainable parameters into two named groups, `decay` and `no_decay`.

    The first group has the weight decay of the optimizer's config, the second has none. An empty group is left out.

    Args:
        network: Network, also one that a strategy has wrapped.
        decayed: Names of the parameters with weight decay, from before a strategy wraps the network: FSDP replaces all
            parameters by flat shards with one axis.

    Returns:
        Parameter groups as a torch optimizer takes them.

    Raises:
        UserError: Nothing is trainable.
    """
    trainable = [(name.replace(_FSDP_PREFIX, ""), p) for name, p in network.named_parameters() if p.requires_grad]
    if not trainable:
        raise UserError(
            f"{type(network).__name__} has no trainable parameters, so there is nothing to optimize: "
            "at least one of its parameters must have requires_grad=True"
        )
    decay = [parameter for name, parameter in trainable if name in decayed]
    no_decay = [parameter for name, parameter in trainable if name not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": decay, "name": "decay"},
        {"params": no_decay, "name": "no_decay", "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
