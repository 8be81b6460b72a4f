"""State of modules outside of their `state_dict`: what is frozen, in training mode, or in which parameter group."""

from typing import TypeGuard

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

ModuleState = dict[str, dict[str, bool]]
ParameterGroups = list[list[list[str]]]  # names, by optimizer and group


def get_module_state(trainer: Trainer, task: LightningModule) -> ModuleState:
    """Copy the state by name. In a validation, the modes are those that follow it."""
    modules = dict(task.named_modules())
    modes = _modes_after_validation(trainer) if trainer.validating else {}
    return {
        "requires_grad": {name: parameter.requires_grad for name, parameter in task.named_parameters()},
        "training": {name: modes.get(name, module.training) for name, module in modules.items()},
        "track_running_stats": {
            name: module.track_running_stats for name, module in modules.items() if isinstance(module, _NormBase)
        },
    }


def set_module_state(state: ModuleState, trainer: Trainer, task: LightningModule) -> None:
    """Set the state of all names that the task has; under another strategy, it may have others."""
    for name, parameter in task.named_parameters():
        parameter.requires_grad_(state["requires_grad"].get(name, parameter.requires_grad))
    for name, module in task.named_modules():
        if isinstance(module, _NormBase):
            module.track_running_stats = state["track_running_stats"].get(name, module.track_running_stats)
        if not trainer.validating:
            module.training = state["training"].get(name, module.training)
    if trainer.validating:
        _modes_after_validation(trainer).update(state["training"])


def get_parameter_groups(trainer: Trainer, task: LightningModule) -> ParameterGroups:
    """Return the names of the parameters in each group of each optimizer."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return [
        [[names.get(id(parameter), "") for parameter in group["params"]] for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]


def add_parameter_groups(groups: ParameterGroups, trainer: Trainer, task: LightningModule) -> None:
    """Add the groups that the optimizers lack, before their states are loaded, which fails for fewer groups."""
    parameters = dict(task.named_parameters())
    for optimizer, saved in zip(trainer.optimizers, groups, strict=False):
        for names in saved[len(optimizer.param_groups) :]:
            if all(name in parameters for name in names):
                optimizer.add_param_group({"params": [parameters[name] for name in names]})


def is_wrapped_by_ddp(strategy: Strategy) -> TypeGuard[DDPStrategy]:
    """Return True if DDP wraps the task."""
    return isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel)


def reduce_trainable_gradients(trainer: Trainer) -> None:
    """Have DDP average the gradients of the parameters that are trained now.

    It only knows those that were trained when it wrapped the task. Unfrozen later, others would differ between ranks.
    """
    strategy = trainer.strategy
    if is_wrapped_by_ddp(strategy):
        strategy.model = strategy.lightning_module  # frees the old wrapper, and with it its hooks
        strategy.configure_ddp()


def _modes_after_validation(trainer: Trainer) -> dict[str, bool]:
    """Return the modes that Lightning keeps while it validates."""
    return trainer.fit_loop.epoch_loop.val_loop._module_mode.mode
