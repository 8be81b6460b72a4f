"""Muon for convolutional networks: filters move by orthogonalised momentum, everything else by SGD."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.sgd import sgd

from litlab.errors import UserError

# Of the quintic that Jordan et al. 2024 iterate: steep at zero, so that five rounds bring all singular values near 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrix: Float[Tensor, "m n"], num_iterations: int) -> Float[Tensor, "m n"]:
    """About U V' of the singular value decomposition U S V': all singular values between 0.7 and 1.2.

    Newton-Schulz iterations with a quintic polynomial (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
    They need no more than matrix products, and on a GPU no more than bfloat16.
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
    """Convolution filters by Muon; norms, biases and fully connected layers by SGD with Nesterov momentum.

    Before each step a filter bank is scaled to the Frobenius norm sqrt(out_channels), as in Jordan's CIFAR-10 recipe:
    the batch norm behind it makes its scale meaningless, so it may as well fit the step, whose size Muon fixes.

    Three parameter groups have learning rates of their own, which a schedule multiplies by one factor: `filters` (four
    axes) take `lr`, `linear` (two axes) takes `linear_lr`, `others` take `others_lr`.

    Args:
        params: parameters or groups of them; groups are regrouped by the number of axes.
        momentum, num_iterations: of Muon.
        sgd_momentum, weight_decay: of SGD; no weight decay for filters, whose norm is fixed.

    Raises:
        UserError: there are no filters: a network without convolutions, or one whose parameters FSDP has flattened.
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
        parameters = [one for each in params for one in (each["params"] if isinstance(each, dict) else [each])]
        by_axes = {
            "filters": [each for each in parameters if each.ndim == 4],
            "linear": [each for each in parameters if each.ndim == 2],
            "others": [each for each in parameters if each.ndim not in (2, 4)],
        }
        if not by_axes["filters"]:
            raise UserError(
                "optimizer=muon is for networks with convolutions, but no trainable parameter has four axes"
                " (FSDP, which flattens them, can't be used with it): use optimizer=sgd or adamw"
            )
        rates = {"filters": lr, "linear": linear_lr, "others": others_lr}
        groups = [{"params": each, "name": name, "lr": rates[name]} for name, each in by_axes.items() if each]
        super().__init__(groups, {"lr": lr})
        self._momentum, self._num_iterations = momentum, num_iterations
        self._sgd_momentum, self._weight_decay = sgd_momentum, weight_decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            used = [each for each in group["params"] if each.grad is not None]
            if group["name"] == "filters":
                self._step_filters(used, group["lr"])
            elif used:
                self._step_others(used, group["lr"])
        return loss

    def _step_filters(self, filters: list[Tensor], lr: float) -> None:
        for bank in filters:
            assert bank.grad is not None
            momentum = self._momentum_of(bank)
            momentum.mul_(self._momentum).add_(bank.grad)
            direction = bank.grad.add(momentum, alpha=self._momentum)  # Nesterov's
            bank.mul_(len(bank) ** 0.5 / bank.norm())
            bank.add_(orthogonalized(direction.flatten(1), self._num_iterations).view(bank.shape), alpha=-lr)

    def _step_others(self, parameters: list[Tensor], lr: float) -> None:
        sgd(
            parameters,
            [each.grad for each in parameters if each.grad is not None],
            [self._momentum_of(each) for each in parameters],
            weight_decay=self._weight_decay,
            momentum=self._sgd_momentum,
            lr=lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum
