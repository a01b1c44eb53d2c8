"""What the tasks of this package share: exact random numbers, and means over an epoch."""

from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.core.batch import Batch
from critical_periods.core.randomness import fold, global_seed


class Task(pl.LightningModule):
    """A LightningModule whose random numbers in training depend on the batch, not on history.

    All that is drawn while training (dropout, say) is seeded anew at each batch from (seed, epoch,
    batch, rank), so that a resumed run draws what an uninterrupted one would have drawn.
    """

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds all that this batch draws."""
        torch.manual_seed(fold(global_seed(), self.current_epoch, batch_idx, self.global_rank))

    def log_mean(self, key: str, value: Any, samples: int, **settings: Any) -> None:
        """Logs the mean of an epoch's batches, each a number or a metric, weighted by samples."""
        self.log(key, value, on_step=False, on_epoch=True, batch_size=samples, **settings)
