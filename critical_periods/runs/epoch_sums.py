"""Means over an epoch that a run was stopped within, as if it had not been."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerStatus

from critical_periods.core.internals import add_epoch_sums, batches_before_resuming, epoch_sums

_SUMS = "critical_periods_sums"


class EpochSums(pl.Callback):
    """Keeps what is logged of a training epoch so far in checkpoints that lie within one.

    Without it a mean such as ``train/loss`` would be that of the rest of the epoch.
    """

    def __init__(self) -> None:
        # What is still to be added to sums that no batch has begun yet.
        self._earlier: dict[str, dict[str, torch.Tensor]] = {}
        self._loaded: list[dict[str, dict[str, torch.Tensor]]] = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps the sums of each process."""
        loop, is_interrupted = trainer.fit_loop, trainer.state.status == TrainerStatus.INTERRUPTED
        # One process that has failed must not wait for the others.
        if loop.epoch_loop.batch_progress.is_last_batch or (
            trainer.world_size > 1 and is_interrupted
        ):
            return
        sums = [self._earlier | epoch_sums(trainer)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(sums, sums[0])
        checkpoint[_SUMS] = sums

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes them from a checkpoint."""
        self._loaded = checkpoint.get(_SUMS, [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on with them where the run goes on within an epoch, in as many processes."""
        if batches_before_resuming(trainer) and len(self._loaded) == trainer.world_size:
            self._earlier = self._loaded[trainer.global_rank]
        self._loaded = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds them to those of the first batches that follow."""
        if self._earlier:
            self._earlier = add_epoch_sums(trainer, self._earlier)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets what no later batch has logged again."""
        self._earlier = {}
