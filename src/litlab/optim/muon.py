"""Muon for convolutional networks: orthogonalized momentum for filters, SGD for everything else."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.sgd import sgd

from litlab.errors import UserError

# Coefficients of Jordan et al. 2024: steep at zero, so that five iterations bring all singular values near 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Float[Tensor, "m n"], num_iterations: int) -> Float[Tensor, "m n"]:
    """Approximate U V' of the singular value decomposition U S V', with singular values between 0.7 and 1.2.

    Newton-Schulz iterations with a quintic polynomial (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon):
    matrix products alone, in bfloat16 on a GPU.

    Args:
        matrix: Matrix of any shape.
        num_iterations: Number of iterations; 5 bring all but the very smallest singular values near 1.
    """
    a, b, c = _QUINTIC
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    result = wide.to(torch.bfloat16) if wide.is_cuda else wide
    result = result / (result.norm() + 1e-7)  # the largest singular value is at most 1
    for _ in range(num_iterations):
        square = result @ result.T
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        result = torch.addmm(result, polynomial, result, beta=a)
    return (result.T if len(matrix) > matrix.shape[1] else result).to(matrix.dtype)


class Muon(Optimizer):
    """Muon for convolution filters; SGD with Nesterov momentum for norms, biases and fully connected layers.

    Before each step the weight of a convolution is scaled to the Frobenius norm sqrt(out_channels), as in Jordan's
    CIFAR-10 recipe: the batch norm behind it makes the network independent of that scale, and the size of Muon's steps
    is fixed.

    Each of the three parameter groups has its own learning rate; a schedule multiplies all of them by one factor.

    Args:
        params: Parameters or groups of them; groups are regrouped by the number of axes.
        lr: Learning rate of `filters`, the parameters with four axes.
        momentum: Momentum of Muon.
        num_iterations: Newton-Schulz iterations of Muon.
        linear_lr: Learning rate of `linear`, the parameters with two axes.
        others_lr: Learning rate of `others`, all other parameters.
        sgd_momentum: Momentum of SGD.
        weight_decay: Fraction by which each step of SGD at the peak rate shrinks the parameters, whatever that rate is,
            as in Jordan's recipe; filters have none, as their norm is fixed.

    Raises:
        UserError: There are no filters: the network has no convolutions, or FSDP has flattened its parameters.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float,
        num_iterations: int,
        linear_lr: float,
        others_lr: float,
        sgd_momentum: float,
        weight_decay: float,
    ) -> None:
        parameters: list[Tensor] = []
        for entry in params:
            parameters += entry["params"] if isinstance(entry, dict) else [entry]
        groups = [
            {"name": "filters", "lr": lr, "params": [p for p in parameters if p.ndim == 4]},
            {"name": "linear", "lr": linear_lr, "params": [p for p in parameters if p.ndim == 2]},
            {"name": "others", "lr": others_lr, "params": [p for p in parameters if p.ndim not in (2, 4)]},
        ]
        if not groups[0]["params"]:
            raise UserError(
                "optimizer=muon is for networks with convolutions, but no trainable parameter has four axes"
                " (FSDP, which flattens them, can't be used with it): use optimizer=sgd or adamw"
            )
        super().__init__([group for group in groups if group["params"]], {"lr": lr})
        self._momentum, self._num_iterations = momentum, num_iterations
        self._sgd_momentum = sgd_momentum
        self._weight_decay = {"linear": weight_decay / linear_lr, "others": weight_decay / others_lr}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Function that computes the loss and its gradients; None if they are there already.

        Returns:
            Loss of the closure, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["name"] == "filters":
                self._step_filters(parameters, group["lr"])
            elif parameters:
                self._step_others(parameters, group["lr"], self._weight_decay[group["name"]])
        return loss

    def _step_filters(self, weights: list[Tensor], lr: float) -> None:
        for weight in weights:
            assert weight.grad is not None
            momentum = self._momentum_buffer(weight)
            momentum.mul_(self._momentum).add_(weight.grad)
            direction = weight.grad.add(momentum, alpha=self._momentum)  # Nesterov
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            weight.add_(orthogonalize(direction.flatten(1), self._num_iterations).view(weight.shape), alpha=-lr)

    def _step_others(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        sgd(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self._momentum_buffer(parameter) for parameter in parameters],
            weight_decay=weight_decay,
            momentum=self._sgd_momentum,
            lr=lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum
