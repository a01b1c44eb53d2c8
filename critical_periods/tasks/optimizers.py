"""Optimisers and learning-rate schedulers, built from a task's settings."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable

from critical_periods.core.errors import UserError, reason


def build(setting: str, make: Callable[..., Any], *args: Any) -> Any:
    """What a setting makes, such as an optimiser; where that fails, a UserError that names it.

    Example:
        >>> build("lr_scheduler", lambda step_size: 1 / step_size, 0)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: lr_scheduler cannot be built: division by zero; \
correct its settings.
    """
    try:
        return make(*args)
    except Exception as error:  # each optimiser and scheduler checks its settings in its own way
        message = f"{setting} cannot be built: {reason(error)}; correct its settings."
        raise UserError(message) from error


def build_optimizer(make: OptimizerCallable, parameters: Any) -> torch.optim.Optimizer:
    """The optimiser, which refuses the state of one of another kind from a checkpoint.

    Raises:
        UserError: it cannot be built; by ``load_state_dict``, the state lacks one of its settings.

    Example:
        >>> from torch.optim import SGD, Adam
        >>> state = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1).state_dict()
        >>> build_optimizer(Adam, [torch.nn.Parameter(torch.zeros(1))]).load_state_dict(state)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: ckpt_path: the state of the optimizer is not \
that of Adam, as it has no 'betas'; give the config that it was trained with.
    """
    optimizer: torch.optim.Optimizer = build("optimizer", make, parameters)
    optimizer.register_load_state_dict_post_hook(_validate_state)
    return optimizer


def _validate_state(optimizer: torch.optim.Optimizer) -> None:
    # Torch takes any state, and fails in the first step.
    for setting in optimizer.defaults:
        if any(setting not in group for group in optimizer.param_groups):
            kind = type(optimizer).__name__
            raise UserError(
                f"ckpt_path: the state of the optimizer is not that of {kind}, as it has no "
                f"{setting!r}; give the config that it was trained with."
            )
