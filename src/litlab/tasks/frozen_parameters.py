"""Frozen parameters of a network, by patterns of their names."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from litlab.errors import UserError

_NUM_LISTED = 8  # names in a message


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Freeze the parameters whose names a regular expression matches from their start on.

    Args:
        network: Network; its names are those without `network.`.
        patterns: Regular expressions.

    Returns:
        Norms with running statistics in frozen modules. They have to stay in evaluation mode, or the frozen part would
        compute something else with each batch.

    Raises:
        UserError: If a pattern matches no parameter, or if nothing is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        matched = [name for name in parameters if re.match(pattern, name)]
        if not matched:
            raise UserError(
                f"task.freeze: {pattern!r} matches no parameter of {type(network).__name__} from the start of its name "
                f"on; the names are {_listed(parameters)}"
            )
        for name in matched:
            parameters[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(
            f"task.freeze: all {len(parameters)} parameters of {type(network).__name__} would be frozen, so there is "
            f"nothing to train; leave out the last ones, {_listed(list(parameters)[-2:])}"
        )
    return list(_frozen_norms(network)) if patterns else []


def count_parameters(
    network: nn.Module, task: nn.Module, requires_grad: Mapping[str, bool] | None = None
) -> tuple[int, int]:
    """Count the parameters of a network: all, and those that are trained.

    Args:
        network: Network, or a task without one.
        task: Task that the network is in.
        requires_grad: Names in the task -> whether each is trained, as a checkpoint has it; None for the present state.
    """
    own = {id(parameter) for parameter in network.parameters()}
    parameters = {name: parameter for name, parameter in task.named_parameters() if id(parameter) in own}
    trained = requires_grad or {}
    return (
        sum(parameter.numel() for parameter in parameters.values()),
        sum(p.numel() for name, p in parameters.items() if trained.get(name, p.requires_grad)),
    )


def find_backbone(network: nn.Module, frozen: Collection[str] = ()) -> nn.ModuleList:
    """Return the children of a network before the last one with parameters, its head.

    Args:
        network: Network.
        frozen: Names of parameters that stay frozen. Modules that consist of such ones are left out, as callbacks
            freeze and unfreeze whole modules.

    Raises:
        UserError: If frozen parameters can't be left out, or nothing else is left.
    """
    children = [child for child in network.children() if any(True for _ in child.parameters())]
    if len(children) == 1:
        name = next(name for name, child in network.named_children() if child is children[0])
        inside = [other.removeprefix(f"{name}.") for other in frozen if other.startswith(f"{name}.")]
        return find_backbone(children[0], inside)
    if not frozen:
        return nn.ModuleList(children[:-1])
    ids = {id(parameter) for name, parameter in network.named_parameters() if name in frozen}
    thawed = [module for child in children[:-1] for module in _without(child, ids)]
    if children[:-1] and not thawed:
        raise UserError(
            f"task.freeze freezes all of {type(network).__name__} but its head, so a callback such as "
            "BackboneFinetuning has nothing to unfreeze; leave out the callback or a part of task.freeze"
        )
    return nn.ModuleList(thawed)


def _without(module: nn.Module, frozen: Collection[int]) -> Iterator[nn.Module]:
    """Yield the outermost modules that have no frozen parameter."""
    if all(id(parameter) not in frozen for parameter in module.parameters()):
        yield module
    elif all(id(parameter) in frozen for parameter in module.parameters()):
        return
    elif any(id(parameter) not in frozen for parameter in module.parameters(recurse=False)):
        raise UserError(
            f"task.freeze freezes a part of a {type(module).__name__}, which a callback such as BackboneFinetuning "
            "freezes and unfreezes as a whole; freeze all of its parameters or none, or leave out the callback"
        )
    else:
        for child in module.children():
            yield from _without(child, frozen)


def _frozen_norms(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the norms inside the outermost modules whose parameters are all frozen."""
    parameters = list(network.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield from (module for module in network.modules() if isinstance(module, _NormBase))
        return
    for child in network.children():
        yield from _frozen_norms(child)


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    names = list(names)
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more
