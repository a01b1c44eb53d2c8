"""What the tasks of this package share: going on exactly, and means over an epoch."""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.internals import (
    batches_before_resuming,
    follow_measures,
    lacks_measures,
    measures_followed,
)
from critical_periods.core.randomness import fold, global_seed
from critical_periods.core.trainer import callbacks_of, trainer_of

# The measures that schedulers follow, in a checkpoint.
_MEASURES = "critical_periods_measures"


class Task(pl.LightningModule):
    """A LightningModule whose random numbers in training depend on the batch, not on history.

    All that is drawn while training (dropout, say) is seeded anew at each batch from (seed, epoch,
    batch, rank), so that a resumed run draws what an uninterrupted one would have drawn.

    Attributes:
        logged: the keys that it logs in ``fit``; of one, there may be parts (``val/loss/view_0``).
    """

    logged: ClassVar[tuple[str, ...]] = ("train/loss", "val/loss")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the measures that schedulers follow, where any does."""
        trainer = trainer_of(self)
        if trainer is not None and (measures := measures_followed(trainer)) is not None:
            checkpoint[_MEASURES] = measures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them from the checkpoint."""
        self._measures = checkpoint.get(_MEASURES)

    def on_train_start(self) -> None:
        """Goes on from a checkpoint with all that Lightning leaves out.

        Raises:
            UserError: it is in the middle of an epoch, and lacks what the epoch has gathered so
                far: gradients that are accumulated, or a mean that a scheduler follows.
        """
        trainer: Any = self.trainer
        done = batches_before_resuming(trainer)
        place = f"ckpt_path: the checkpoint is of batch {done} of an epoch"
        # Set as an epoch starts, which one that is resumed does not.
        for callback in callbacks_of(trainer):
            if hasattr(callback, "get_accumulate_grad_batches"):
                batches = callback.get_accumulate_grad_batches(trainer.current_epoch)
                trainer.accumulate_grad_batches = batches
        if done < trainer.num_training_batches and done % trainer.accumulate_grad_batches:
            raise UserError(
                f"{place}, between two steps of {trainer.accumulate_grad_batches} batches, and "
                "holds none of the gradients that were accumulated; go on from one of a step or of "
                "an epoch's end."
            )
        if missing := lacks_measures(trainer):
            raise UserError(
                f"{place}, and does not hold {' and '.join(missing)} of that epoch, which the "
                "lr_scheduler follows; go on from one of an epoch's end."
            )
        if (measures := getattr(self, "_measures", None)) is not None:
            follow_measures(trainer, measures)
            self._measures = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds all that this batch draws."""
        torch.manual_seed(fold(global_seed(), self.current_epoch, batch_idx, self.global_rank))

    def log_mean(self, key: str, value: Any, samples: int, **settings: Any) -> None:
        """Logs the mean of an epoch's batches, each a number or a metric, weighted by samples."""
        self.log(key, value, on_step=False, on_epoch=True, batch_size=samples, **settings)
