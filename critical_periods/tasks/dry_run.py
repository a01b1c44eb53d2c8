"""What would fail hours later, tried before training: the schedule, and the network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from critical_periods.core.errors import UserError, reason
from critical_periods.data.example import two_samples
from critical_periods.metrics.functional.fisher import evaluating


def built(setting: str, make: Callable[..., Any], *args: Any) -> Any:
    """What a setting makes, such as an optimiser; what it complains of names the setting.

    Raises:
        UserError: it cannot be made.

    Example:
        >>> built("lr_scheduler", lambda step_size: 1 / step_size, 0)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: lr_scheduler cannot be built: division by zero; \
correct its settings.
    """
    try:
        return make(*args)
    except Exception as error:  # each optimiser and scheduler checks its settings in its own way
        raise _complaint(f"{setting} cannot be built", error) from error


def built_optimizer(make: OptimizerCallable, parameters: Any) -> torch.optim.Optimizer:
    """The optimiser, which does not take the state of one of another kind from a checkpoint.

    Raises:
        UserError: it cannot be built; by ``load_state_dict``, the state lacks a setting of its.

    Example:
        >>> from torch.optim import SGD, Adam
        >>> state = SGD([nn.Parameter(torch.zeros(1))], lr=1).state_dict()
        >>> built_optimizer(Adam, [nn.Parameter(torch.zeros(1))]).load_state_dict(state)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: ckpt_path: the state of the optimizer is not \
that of Adam, as it has no 'betas'; give the config that it was trained with.
    """
    optimizer: torch.optim.Optimizer = built("optimizer", make, parameters)
    optimizer.register_load_state_dict_post_hook(_look_at_kind)
    return optimizer


def rehearse_schedule(
    optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None, epochs: int
) -> None:
    """Lets a schedule run through all epochs of a training, for one small convolution.

    Args:
        optimizer: from parameters to an optimiser.
        lr_scheduler: from the optimiser to a scheduler stepped once an epoch, if there is one.
        epochs: of the training.

    Raises:
        UserError: the optimiser or the scheduler cannot be built or not be stepped so often, or a
            rate is negative or a setting not finite.

    Example:
        >>> from torch.optim import SGD
        >>> from torch.optim.lr_scheduler import ExponentialLR
        >>> rehearse_schedule(lambda p: SGD(p, lr=1), lambda o: ExponentialLR(o, -1), epochs=2)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: lr_scheduler (ExponentialLR) makes the learning \
rate -1.0 in epoch 1; correct its settings.
    """
    # Of the shape and layout of a convolution's, which some optimisers do not take.
    filters = torch.zeros(2, 2, 2, 2).to(memory_format=torch.channels_last)
    weight = nn.Parameter(filters)
    weight.grad = torch.zeros_like(filters)
    tried = built("optimizer", optimizer, [weight])
    _look_at_settings(tried)
    name = f"optimizer ({type(tried).__name__})"
    try:
        # Some do not take the gradients of these networks at all; some want a closure.
        tried.step(lambda: torch.zeros(()))
        if lr_scheduler is None:
            return
        scheduler = built("lr_scheduler", lr_scheduler, tried)
        name = f"lr_scheduler ({type(scheduler).__name__})"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for epoch in range(epochs):
                _look_at_rates(tried, name, epoch)
                tried.step(lambda: torch.zeros(()))
                if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(0.0)
                else:
                    scheduler.step()
    except UserError:
        raise
    except Exception as error:
        raise _complaint(f"{name} cannot go through {epochs} epochs", error) from error


def scheduled(optimizer: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
    """What ``configure_optimizers`` gives to Lightning, for a scheduler stepped once an epoch.

    Raises:
        UserError: the scheduler follows a measure, but does not say which.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        plan = {"scheduler": scheduler, "monitor": scheduler.monitor}
        return {"optimizer": optimizer, "lr_scheduler": plan}
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UserError(
            "lr_scheduler (ReduceLROnPlateau) does not say which measure it follows; use "
            "pytorch_lightning.cli.ReduceLROnPlateau, which has the setting monitor."
        )
    return {"optimizer": optimizer, "lr_scheduler": scheduler}


def rehearse_network(task: pl.LightningModule, data: Any, num_classes: int) -> None:
    """Sends two samples through a task's network, where the data has samples to give.

    Args:
        task: gives the logits of one tensor a view, by its attribute ``network``.
        data: a DataModule that is set up; without a ``measurement_loader`` nothing is tried.
        num_classes: how many logits there must be.

    Raises:
        UserError: the network cannot take the views, or gives another number of logits.
    """
    if not hasattr(data, "measurement_loader"):
        return
    network = type(task.network).__name__
    with isolate_rng(), evaluating(task), torch.no_grad():
        views = two_samples(data, task.device).views
        # Lightning converts a model to half or double precision only when it trains it.
        dtype = next((one.dtype for one in task.parameters()), views.dtype)
        try:
            logits = task(*views.to(dtype).unbind(1))
        except UserError:
            raise
        except Exception as error:  # torch says in many ways that shapes do not fit
            shape = "x".join(map(str, views.shape[2:]))
            raise UserError(
                f"{network} cannot take what {type(data).__name__} gives, {views.shape[1]} "
                f"view{'s' * (views.shape[1] > 1)} of {shape}: {reason(error)}; set the network's "
                "in_channels, num_views or sizes to fit."
            ) from error
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise UserError(
            f"num_classes={num_classes} of {type(task).__name__}, but {network} puts out "
            f"{'x'.join(map(str, logits.shape[1:]))} logits; set num_classes of both alike."
        )


def _look_at_kind(optimizer: torch.optim.Optimizer) -> None:
    # Torch takes any state, and fails in the first step.
    for setting in optimizer.defaults:
        if any(setting not in group for group in optimizer.param_groups):
            raise UserError(
                "ckpt_path: the state of the optimizer is not that of "
                f"{type(optimizer).__name__}, as it has no {setting!r}; give the config that it "
                "was trained with."
            )


def _look_at_settings(optimizer: torch.optim.Optimizer) -> None:
    for setting, value in optimizer.param_groups[0].items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{setting}={value} of the optimizer ({type(optimizer).__name__}) is no finite "
                "number; correct it."
            )


def _look_at_rates(optimizer: torch.optim.Optimizer, name: str, epoch: int) -> None:
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        if not (math.isfinite(rate) and rate >= 0):
            raise UserError(
                f"{name} makes the learning rate {rate:.6} in epoch {epoch}; correct its settings."
            )


def _complaint(what: str, error: Exception) -> UserError:
    return UserError(f"{what}: {reason(error)}; correct its settings.")
