"""What all windows share: an onset and a removal, which have to fit into the run."""

from typing import ClassVar, TypeVar

import pytorch_lightning as pl

from critical_periods.core.errors import UserError
from critical_periods.core.internals import under_both_names
from critical_periods.core.trainer import callbacks_of, ends_before

W = TypeVar("W", bound="Window")


@under_both_names
class Window(pl.Callback):
    """Epochs ``onset`` to ``removal - 1`` of a run, in which a subclass changes something.

    A subclass overrides :meth:`switch` and :meth:`restore`, or hooks of Lightning's own.
    ``<kind>/active`` is logged each epoch: 1 where any window of this kind is open.

    Args:
        onset: the first epoch of the window.
        removal: the first epoch after it; ``None`` means to the end, ``onset`` never.

    Raises:
        UserError: the window ends before it begins; before training, it lies beyond the last epoch.

    Example:
        >>> [Window(1, 3).is_open(epoch) for epoch in range(4)]
        [False, True, True, False]
    """

    kind: ClassVar[str] = "deficit"
    """What comes and goes; ``deficit`` in every window that takes something away."""
    changes_nothing_while_closed: ClassVar[bool] = False
    """Whether epochs before it opens are as without it: a study trains these once for all."""

    def __init__(self, onset: int = 0, removal: int | None = None) -> None:
        name = type(self).__name__
        if onset < 0:
            raise UserError(f"onset={onset} of {name} must not be negative.")
        if removal is not None and removal < onset:
            raise UserError(
                f"removal={removal} of {name} lies before its onset={onset}; choose a removal of "
                f"at least {onset}, or null for a {self.kind} to the end."
            )
        self.onset = onset
        self.removal = removal

    def is_open(self, epoch: int) -> bool:
        """Whether the window is open in this epoch."""
        return self.onset <= epoch and (self.removal is None or epoch < self.removal)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the window lies within the run."""
        needed = self.onset + 1 if self.removal is None else self.removal
        if stage == "fit" and ends_before(trainer, needed):
            raise UserError(
                f"the window of {type(self).__name__} (onset={self.onset}, removal={self.removal}) "
                f"reaches beyond the last epoch of training: {trainer.max_epochs=}."
            )

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Changes what the window is about at the start of an epoch, new or resumed."""

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undoes every change, at the end of training or after an error."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches for this epoch."""
        self.switch(trainer, pl_module)

    # An epoch that is resumed does not start again.
    on_train_start = on_train_epoch_start

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores."""
        self.restore(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restores."""
        self.restore(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs whether any window of this kind was open."""
        # All windows log the same number, so the mean that Lightning takes of them is 0 or 1 too.
        is_open = any(window.kind == self.kind for window in open_windows(trainer, Window))
        pl_module.log(f"{self.kind}/active", float(is_open), sync_dist=True)


def windows(trainer: pl.Trainer, kind: type[W]) -> list[W]:
    """The windows of a class among a trainer's callbacks, in their order."""
    return [one for one in callbacks_of(trainer) if isinstance(one, kind)]


def open_windows(trainer: pl.Trainer, kind: type[W]) -> list[W]:
    """Those of them that are open in the current epoch."""
    return [one for one in windows(trainer, kind) if one.is_open(trainer.current_epoch)]
