"""The check that training has not diverged."""

import pytorch_lightning as pl
from torch import Tensor

from critical_periods.core.errors import UserError


def check_finite(task: pl.LightningModule, loss: Tensor, rate: str) -> None:
    """Stops a training whose loss is not finite, so that it is not recorded as finished.

    Validation checks too, as its loss is the first after an epoch's last step.

    Args:
        task: the task; outside ``fit`` nothing is checked.
        loss: its current loss.
        rate: the setting to lower, as the message names it.

    Raises:
        UserError: the loss is not finite.
    """
    if task.trainer.state.fn == "fit" and not loss.isfinite():
        raise UserError(
            f"the loss of {type(task).__name__} is {loss.item()} at the end of epoch "
            f"{task.current_epoch}, as its steps are too long; lower {rate}."
        )
