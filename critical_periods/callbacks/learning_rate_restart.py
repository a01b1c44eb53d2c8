"""A learning-rate schedule that starts over, such as when a deficit is removed."""

import copy
import math
from typing import Any, ClassVar

import pytorch_lightning as pl

from critical_periods.callbacks.windows.window import Window, windows
from critical_periods.core.errors import UserError
from critical_periods.core.internals import under_both_names
from critical_periods.core.trainer import validate_end

# What torch's schedulers set in a parameter group.
_SCHEDULED = {"lr", "momentum", "betas"}


@under_both_names
class LearningRateRestart(pl.Callback):
    """At an epoch, the learning-rate schedule starts over from its beginning.

    With a schedule η(0), η(1), … and a restart at epoch r, epoch e ≥ r is trained at η(e − r).
    Pawlak 2025 (arXiv 2510.09687): restarting or cycling the rate when a deficit ends closes most
    of the gap that it would leave.

    Any scheduler of torch will do, stepped by epoch, by batch or by a metric: it gets back the
    state that it was configured with, and the parameter groups their rates. Everything else that
    an optimiser remembers stays: momentum buffers and Adam's averages go on. List it before a
    ``LearningRateMonitor``, which would otherwise log the rate from before the restart.

    Args:
        epoch: the first epoch of the schedule that starts over; by default the removal of the
            run's window (a deficit's, a subset's or a regulariser's; of several, the last
            removal). A run without a removal is trained without a restart.
        every_n_epochs: whether it starts over again every so many epochs after that.

    Raises:
        UserError: the epoch is negative or the cycle shorter than 1; before training, the epoch is
            beyond the last one, or there is no window to take it from, or no schedule.

    Example:
        >>> restart = LearningRateRestart(epoch=20, every_n_epochs=5)
        >>> [epoch for epoch in range(31) if restart.is_due(epoch, 20)]
        [20, 25, 30]
    """

    changes_nothing_before: ClassVar[str] = "epoch"
    """The setting with the first epoch in which it changes anything; if null, a removal is that."""

    def __init__(self, epoch: int | None = None, every_n_epochs: int | None = None) -> None:
        if epoch is not None and epoch < 0:
            raise UserError(f"epoch={epoch} of LearningRateRestart must not be negative.")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise UserError(
                f"every_n_epochs={every_n_epochs} of LearningRateRestart must be at least 1."
            )
        self.epoch = epoch
        self.every_n_epochs = every_n_epochs
        self._latest = -1
        # States of the schedulers and of the parameter groups, as configured.
        self._start: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []

    def is_due(self, epoch: int, first: int | None) -> bool:
        """Whether the schedule starts over in an epoch, ``first`` being the first such epoch."""
        if first is None or epoch < first:
            return False
        since = epoch - first
        return since == 0 if self.every_n_epochs is None else since % self.every_n_epochs == 0

    @property
    def state_key(self) -> str:
        """What tells this restart from others in a checkpoint."""
        return f"LearningRateRestart(epoch={self.epoch}, every_n_epochs={self.every_n_epochs})"

    def state_dict(self) -> dict[str, Any]:
        """The epoch that last started the schedule over, so that resuming does not do it again."""
        return {"latest": self._latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the checkpoint's last restart."""
        self._latest = state_dict["latest"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that there is an epoch to start over at, within the run."""
        if stage != "fit":
            return
        self._latest = -1
        if self.epoch is None and not _awaited(trainer):
            raise UserError(
                "LearningRateRestart starts the schedule over at the removal of a window, but this "
                "run has none; set its epoch, such as every_n_epochs for a cycle."
            )
        in_steps = [one for one in _awaited(trainer) if one.unit == "step"]
        if self.epoch is None and in_steps:
            raise UserError(
                "LearningRateRestart starts the schedule over as an epoch begins, but the window "
                f"of {in_steps[0].described} counts steps; set the epoch of LearningRateRestart."
            )
        self._validate_epoch(trainer)

    def _validate_epoch(self, trainer: pl.Trainer, batches: float = math.inf) -> None:
        if self.epoch is not None:
            what = f"epoch={self.epoch} of LearningRateRestart lies"
            validate_end(trainer, what, self.epoch + 1, batches=batches)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the schedule as it is configured, before a checkpoint's state is loaded."""
        configured = trainer.lr_scheduler_configs
        if not configured:
            raise UserError(
                "LearningRateRestart finds no learning-rate schedule that could start over; give "
                "the run one, such as lr_scheduler of ClassificationTask, or leave it out."
            )
        schedulers = [one.scheduler.state_dict() for one in configured]
        groups = [
            {name: group[name] for name in _SCHEDULED & group.keys()} for group in _groups(trainer)
        ]
        self._start = copy.deepcopy((schedulers, groups))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the schedule over where that is due and not done yet."""
        epoch = trainer.current_epoch
        removals = [end for one in _awaited(trainer) if (end := one.removal) and one.onset < end]
        first = max(removals, default=None) if self.epoch is None else self.epoch
        if epoch == self._latest or not self.is_due(epoch, first):
            return
        self._latest = epoch
        schedulers, groups = copy.deepcopy(self._start)
        for one, state in zip(trainer.lr_scheduler_configs, schedulers, strict=True):
            one.scheduler.load_state_dict(state)
        # Groups that were added since keep their rates.
        for group, state in zip(_groups(trainer), groups, strict=False):
            group |= state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the epoch against the batches of one; an epoch that is resumed does not start."""
        self._validate_epoch(trainer, trainer.num_training_batches)
        self.on_train_epoch_start(trainer, pl_module)


def _awaited(trainer: pl.Trainer) -> list[Window]:
    """The windows whose removal it waits for: not remedies, which say when they begin."""
    return [one for one in windows(trainer, Window) if not hasattr(one, "changes_nothing_before")]


def _groups(trainer: pl.Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
