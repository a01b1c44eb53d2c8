"""Warm-starting on a part of the data, as a deficit."""

from collections.abc import Callable
from typing import ClassVar

import pytorch_lightning as pl

from critical_periods.callbacks.image_data import image_data, validate_interval
from critical_periods.callbacks.windows.window import Window, open_windows
from critical_periods.core.errors import UserError
from critical_periods.core.internals import finish_resumed_epoch, reload_every_epoch
from critical_periods.core.trainer import Unit
from critical_periods.data.epochs import EpochSampler
from critical_periods.data.images import ImageDataModule


class SubsetWindow(Window):
    """From epoch ``onset`` to ``removal - 1``, training sees only a share of its images.

    The share is fixed, class-balanced and the same in every run; its epochs are shorter
    accordingly. Where several of these windows are open, the smallest share rules. It logs
    ``deficit/active`` as other deficits do. A network that is warm-started so generalises worse
    than one that has seen everything from the start (Ash & Adams 2020), which Pawlak 2025 (arXiv
    2510.09687) reads as a critical period.

    Args:
        share: of the training images, in (0, 1).
        onset: the first epoch on the share.
        removal: the first epoch on all images again; ``None`` means to the end.
        unit: ``epoch``; ``step`` is refused, as an epoch's images are drawn before its first step.

    Raises:
        UserError: the share is not in (0, 1), or the unit a step; before training, the DataModule
            is none of this package, or the share too small for classes, processes or
            ``val_check_interval``.

    Example:
        >>> window = SubsetWindow(share=0.5, removal=30)
        >>> [window.is_open(epoch) for epoch in (0, 29, 30)]
        [True, True, False]
    """

    changes_nothing_while_closed: ClassVar[bool] = True

    def __init__(
        self, share: float, onset: int = 0, removal: int | None = None, unit: Unit = "epoch"
    ) -> None:
        super().__init__(onset, removal, unit)
        if unit == "step":
            raise UserError(
                "unit='step' of SubsetWindow: the images of an epoch are drawn before its first "
                "step and cannot change within it; give onset and removal in epochs."
            )
        if not 0 < share < 1:
            raise UserError(f"share={share} of SubsetWindow must lie between 0 and 1.")
        self.share = share
        self._restore_reloading: Callable[[], None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks the share and the window, then has each epoch's loader made anew."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        data = _data(trainer)
        index = data.train_subset(self.share)
        batches = len(EpochSampler(index, data.batch_size, True, world_size=trainer.world_size))
        validate_interval(trainer, batches, f"share={self.share} of SubsetWindow")
        if self.onset == self.removal:
            return
        data.shares.add(self.share)
        if data.share is not None:
            return
        # Of several windows that are open, the smallest share.
        data.share = lambda: min([1.0, *(one.share for one in open_windows(trainer, SubsetWindow))])
        self._restore_reloading = reload_every_epoch(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on after a checkpoint of an epoch's last batch with the next epoch's first."""
        # No epoch has more batches than there are samples.
        finish_resumed_epoch(trainer, len(_data(trainer).train_subset(1)))
        super().on_train_start(trainer, pl_module)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the DataModule all images again, and the Trainer its setting."""
        if self._restore_reloading is not None:
            _data(trainer).share = None
            _data(trainer).shares.clear()
            self._restore_reloading()
            self._restore_reloading = None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restores after a dry run, too, which sets up but does not train."""
        self.restore(trainer, pl_module)


def _data(trainer: pl.Trainer) -> ImageDataModule:
    return image_data(trainer, "SubsetWindow chooses among the training images of")
