"""Warm-starting on a part of the data, as a deficit."""

from __future__ import annotations

from typing import ClassVar

import pytorch_lightning as pl

from critical_periods.callbacks.windows.window import Window, windows
from critical_periods.core.errors import UserError
from critical_periods.data.epochs import EpochSampler
from critical_periods.data.images import ImageDataModule


class SubsetWindow(Window):
    """From epoch ``onset`` to ``removal - 1``, training sees but a share of its images.

    The share is fixed, class-balanced and the same in every run; its epochs are shorter
    accordingly. Where several of these windows are open, the smallest share rules. A network that
    is warm-started so generalises worse than one that has seen everything from the start (Ash &
    Adams 2020), which Pawlak 2025 (arXiv 2510.09687) reads as a critical period.

    ``deficit/active`` is logged each epoch: 1 where this or any other deficit is there.

    Args:
        share: of the training images, in (0, 1).
        onset: the first epoch on the share.
        removal: the first epoch on all images again; ``None`` means to the end.

    Raises:
        UserError: the share is not in (0, 1), or the window ends before it begins; before training,
            the window lies beyond the last epoch, the DataModule is none of this package, or the
            share is too small for its classes, for the processes or for ``val_check_interval``.

    Example:
        >>> window = SubsetWindow(share=0.5, removal=30)
        >>> [window.is_open(epoch) for epoch in (0, 29, 30)]
        [True, True, False]
    """

    changes_nothing_while_closed: ClassVar[bool] = True

    def __init__(self, share: float, onset: int = 0, removal: int | None = None) -> None:
        super().__init__(onset, removal)
        if not 0 < share < 1:
            raise UserError(f"share={share} of SubsetWindow must lie between 0 and 1.")
        self.share = share
        self._reload: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares share and window with the run, then has each epoch's loader made anew."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        data = _data(trainer)
        index = data.train_subset(self.share)
        batches = len(EpochSampler(index, data.batch_size, True, world_size=trainer.world_size))
        interval = trainer.val_check_interval
        per_epoch = trainer.check_val_every_n_epoch is not None
        if per_epoch and isinstance(interval, int) and interval > batches:
            raise UserError(
                f"val_check_interval={interval} is more than the {batches} batches of an epoch on "
                f"share={self.share} of SubsetWindow; choose at most {batches}, or 1.0."
            )
        if self.onset == self.removal or data.share is not None:
            return
        data.share = lambda: _share(trainer)
        # Lightning counts the batches of an epoch, and places validation, as it takes a loader.
        self._reload = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sees to it that a checkpoint of an epoch's last batch is not taken for a half-way one."""
        loop = trainer.fit_loop.epoch_loop
        if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
            # Lightning would compare this count with the batches of the next epoch, to zero it.
            everything = _data(trainer).train_subset(1)
            loop.batch_progress.current.completed = len(everything)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves no trace in the project."""
        if self._reload is not None:
            _data(trainer).share = None
            trainer.reload_dataloaders_every_n_epochs = self._reload  # type: ignore[attr-defined]
            self._reload = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leaves no trace in the project."""
        self.teardown(trainer, pl_module, "fit")


def _share(trainer: pl.Trainer) -> float:
    now = trainer.current_epoch
    subsets = [window for window in windows(trainer) if isinstance(window, SubsetWindow)]
    return min((window.share for window in subsets if window.is_open(now)), default=1.0)


def _data(trainer: pl.Trainer) -> ImageDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageDataModule):
        found = "data loaders alone" if data is None else type(data).__name__
        raise UserError(
            "SubsetWindow chooses among the training images of a DataModule of critical_periods, "
            f"but this run has {found}; use one of those."
        )
    return data
