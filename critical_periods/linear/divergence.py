"""The check that training has not diverged."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from critical_periods.core.errors import UserError


def check_finite(task: pl.LightningModule, loss: Tensor, rate: str) -> None:
    """Stops a training that has diverged, so that it is not recorded as finished.

    Args:
        task: the task in training.
        loss: its current loss.
        rate: the setting to lower, as the message names it.

    Raises:
        UserError: the loss is not finite.

    Example:
        >>> import torch
        >>> from critical_periods.linear import MultiPathLinear, RegressionTask
        >>> check_finite(RegressionTask(MultiPathLinear()), torch.tensor(float("nan")), "lr")
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: the loss of RegressionTask is nan at the end of \
epoch 0, as its steps are too long; lower lr.
    """
    if not loss.isfinite():
        raise UserError(
            f"the loss of {type(task).__name__} is {loss.item()} at the end of epoch "
            f"{task.current_epoch}, as its steps are too long; lower {rate}."
        )
