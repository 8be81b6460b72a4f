"""Frozen parameters of a network, by patterns of their names."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from litlab.errors import UserError

_NUM_LISTED = 8  # names in a message


class FrozenParameters:
    """Parameters of a network that are not trained: those whose names a regular expression matches from their start on.

    A frozen parameter has no gradient, so the optimizer neither moves it nor applies weight decay, and autograd skips
    all layers before the first parameter that is trained. Norms with running statistics in frozen modules stay in
    evaluation mode, or the frozen part would compute something else with each batch.

    Args:
        network: Network; its names are those without `network.`.
        patterns: Regular expressions.
        after_epochs: Epochs in which the parameters are trained before they are frozen; 0 to freeze them now.

    Attributes:
        names: Names of all parameters that stay frozen, also of those that the network froze itself; empty without
            patterns.
        norms: Norms in frozen modules.

    Raises:
        UserError: If a pattern matches no parameter, or if nothing is left to train.
    """

    def __init__(self, network: nn.Module, patterns: Sequence[str], *, after_epochs: int) -> None:
        parameters = dict(network.named_parameters())
        matched = _match(patterns, parameters, type(network).__name__)
        frozen = [name for name, parameter in parameters.items() if name in matched or not parameter.requires_grad]
        self.names = frozenset(frozen if patterns else ())
        self.norms = list(_norms_within(network, {id(parameters[name]) for name in self.names}))
        self._parameters = [parameters[name] for name in matched]
        self._after_epochs = after_epochs
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Freeze the parameters if their epochs of training are over; `epoch` counts from 0."""
        if epoch >= self._after_epochs:
            for parameter in self._parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
        self.keep_norms()

    def keep_norms(self) -> None:
        """Set the norms to evaluation mode, unless they are still trained."""
        if not self._after_epochs or not any(parameter.requires_grad for parameter in self._parameters):
            for norm in self.norms:
                norm.eval()


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


def _match(patterns: Sequence[str], parameters: Mapping[str, nn.Parameter], network: str) -> set[str]:
    """Return the names that a pattern matches from their start on.

    Raises:
        UserError: If a pattern matches none, or nothing is left to train.
    """
    names: set[str] = set()
    for pattern in patterns:
        matched = {name for name in parameters if re.match(pattern, name)}
        if not matched:
            raise UserError(
                f"task.freeze: {pattern!r} matches no parameter of {network} from the start of its name on; the names "
                f"are {_listed(parameters)}"
            )
        names |= matched
    if patterns and not any(parameters[name].requires_grad for name in parameters.keys() - names):
        raise UserError(
            f"task.freeze: all {len(parameters)} parameters of {network} would be frozen, so there is nothing to "
            f"train; leave out the last ones, {_listed(list(parameters)[-2:])}"
        )
    return names


def _norms_within(module: nn.Module, frozen: Collection[int]) -> Iterator[nn.Module]:
    """Yield the norms inside the outermost modules whose parameters are all frozen."""
    parameters = list(module.parameters())
    if parameters and all(id(parameter) in frozen for parameter in parameters):
        yield from (child for child in module.modules() if isinstance(child, _NormBase))
        return
    for child in module.children():
        yield from _norms_within(child, frozen)


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    names = list(names)
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more
