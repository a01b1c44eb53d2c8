"""Dry runs of a schedule and of a network, which find before training what would fail later."""

import copy
import math
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from critical_periods.core.errors import UserError, reason
from critical_periods.data.example import two_samples
from critical_periods.data.last_batch import refusal_of_one_sample
from critical_periods.metrics.functional.fisher import evaluating
from critical_periods.tasks.optimizers import build


def validate_schedule(
    optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None, epochs: int
) -> None:
    """Steps an optimiser and its schedule through all epochs, for one small convolution.

    Raises:
        UserError: the optimiser or the scheduler cannot be built or not be stepped so often, it
            follows a measure without saying which, a rate is negative or a setting not finite.

    Example:
        >>> from torch.optim import SGD
        >>> from torch.optim.lr_scheduler import ExponentialLR
        >>> validate_schedule(lambda p: SGD(p, lr=1), lambda o: ExponentialLR(o, -1), epochs=2)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: lr_scheduler (ExponentialLR) makes the learning \
rate -1.0 in epoch 1; correct its settings.
    """
    # Of the shape and layout of a convolution's, which some optimisers do not take.
    filters = torch.zeros(2, 2, 2, 2).to(memory_format=torch.channels_last)
    weight = nn.Parameter(filters)
    weight.grad = torch.zeros_like(filters)
    tried = build("optimizer", optimizer, [weight])
    name = f"optimizer ({type(tried).__name__})"
    for setting, value in tried.param_groups[0].items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{setting}={value} of the {name} is no finite number; correct it.")
    try:
        # Some do not take the gradients of these networks at all; some want a closure.
        tried.step(lambda: torch.zeros(()))
        if lr_scheduler is None:
            return
        scheduler = build("lr_scheduler", lr_scheduler, tried)
        name = f"lr_scheduler ({type(scheduler).__name__})"
        follows_measure = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if follows_measure and not isinstance(scheduler, ReduceLROnPlateau):
            raise UserError(
                f"{name} does not say which measure it follows; use "
                "pytorch_lightning.cli.ReduceLROnPlateau, which has the setting monitor."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for epoch in range(epochs):
                for rate in (float(group["lr"]) for group in tried.param_groups):
                    if not (math.isfinite(rate) and rate >= 0):
                        raise UserError(
                            f"{name} makes the learning rate {rate:.6} in epoch {epoch}; correct "
                            "its settings."
                        )
                tried.step(lambda: torch.zeros(()))
                scheduler.step(*([0.0] if follows_measure else []))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} cannot go through {epochs} epochs: {reason(error)}; correct its settings."
        ) from error


def fails_on_one_sample(task: pl.LightningModule, data: Any) -> Exception | None:
    """What a copy of a network, in training, says of one sample, if it does take two."""
    network: Any = task.network
    task.network = copy.deepcopy(network).train()
    try:
        return refusal_of_one_sample(task, data, lambda batch: task(*batch.inputs))
    finally:
        task.network = network


def validate_network(task: pl.LightningModule, data: Any, num_classes: int) -> None:
    """Sends two samples through a task's network, where data has a ``measurement_loader``.

    Raises:
        UserError: the network cannot take the views, or gives another number of logits.
    """
    if not hasattr(data, "measurement_loader"):
        return
    network = type(task.network).__name__
    with isolate_rng(), evaluating(task), torch.no_grad():
        views = two_samples(data, task).views
        try:
            logits = task(*views.unbind(1))
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
