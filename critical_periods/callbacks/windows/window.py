"""What all windows share: an onset and a removal, which have to fit into the run."""

from typing import Any, ClassVar, TypeVar, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from critical_periods.core.errors import UserError, near
from critical_periods.core.internals import under_both_names
from critical_periods.core.trainer import (
    Unit,
    callbacks_of,
    is_whole,
    may_not_end_an_epoch,
    validate_end,
)

W = TypeVar("W", bound="Window")


@under_both_names
class Window(pl.Callback):
    """Epochs or steps ``onset`` to ``removal - 1`` of a run, in which a subclass changes something.

    A subclass overrides :meth:`switch` and :meth:`restore`, or hooks of Lightning's own, and finds
    in ``acts`` whether it is open. ``<kind>/active`` is logged each epoch: 1 where any window of
    this kind is open. Where one of them counts steps, it is logged at each training batch instead.

    A step is one of ``trainer.global_step``: what an optimiser takes after
    ``accumulate_grad_batches`` batches, and after an epoch's last. With several optimisers each
    one's steps count, as they do for ``trainer.max_steps``. The first batch of the window is the
    first that begins after at least ``onset`` steps, and its last the last that begins before
    ``removal`` of them: a window in steps opens and closes between two batches whose gradients
    do not go into one step. With N steps an epoch, epoch e is steps N e to N (e + 1) - 1, and both
    windows are the same to the bit. Validation is as the last batch before it.

    Args:
        onset: the first epoch or step of the window.
        removal: the first one after it; ``None`` means to the end, ``onset`` never.
        unit: ``epoch`` or ``step``: what both are counted in.

    Raises:
        UserError: the window ends before it begins; before training, it lies beyond the end of the
            run, or counts epochs where not even the first is known to end.

    Example:
        >>> [Window(1, 3).is_open(epoch) for epoch in range(4)]
        [False, True, True, False]
    """

    kind: ClassVar[str] = "deficit"
    """What comes and goes; ``deficit`` in every window that takes something away."""
    changes_nothing_while_closed: ClassVar[bool] = False
    """Whether epochs before it opens are as without it: a study trains these once for all."""

    def __init__(self, onset: int = 0, removal: int | None = None, unit: Unit = "epoch") -> None:
        name = type(self).__name__
        if onset < 0:
            raise UserError(f"onset={onset} of {name} must not be negative.")
        if removal is not None and removal < onset:
            raise UserError(
                f"removal={removal} of {name} lies before its onset={onset}; choose a removal of "
                f"at least {onset}, or null for a {self.kind} to the end."
            )
        if unit not in get_args(Unit):
            raise UserError(f"unit={unit!r} of {name} is unknown; {near(unit, get_args(Unit))}")
        self.onset = onset
        self.removal = removal
        self.unit: Unit = unit
        self.acts = False
        """Whether it was open as the latest training batch began."""

    @property
    def described(self) -> str:
        """The window in a sentence."""
        steps = ", unit=step" if self.unit == "step" else ""
        return f"{type(self).__name__} (onset={self.onset}, removal={self.removal}{steps})"

    @property
    def needed(self) -> int:
        """How many epochs or steps a run must have for it to open and to close."""
        return self.onset + 1 if self.removal is None else self.removal

    def is_open(self, time: int) -> bool:
        """Whether the window is open in this epoch, or after so many steps."""
        return self.onset <= time and (self.removal is None or time < self.removal)

    def now(self, trainer: pl.Trainer) -> int:
        """The epoch, or how many steps have been taken."""
        return trainer.current_epoch if self.unit == "epoch" else trainer.global_step

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the window lies within the run."""
        if stage == "fit":
            validate_end(trainer, f"the window of {self.described} reaches", self.needed, self.unit)

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Changes what the window is about, before the batches of an epoch or before each batch.

        A window that counts epochs calls it at the start of each, new or resumed; one that counts
        steps calls it after each batch, too, which is before the next one leaves the data stage.
        """

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undoes every change, at the end of training or after an error."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the window against the batches of an epoch, known by now, and switches."""
        batches = trainer.num_training_batches
        what = f"the window of {self.described} reaches"
        validate_end(trainer, what, self.needed, self.unit, batches)
        waits = self.onset > 0 or self.removal not in (None, self.onset)
        if self.unit == "epoch" and waits and may_not_end_an_epoch(trainer):
            raise UserError(
                f"the window of {self.described} counts epochs, but the training data has no "
                f"length and the run ends by other things than epochs "
                f"(trainer.max_epochs={trainer.max_epochs}, trainer.max_steps="
                f"{trainer.max_steps}), so that no epoch may ever end; give it in steps "
                "(unit: step), or set trainer.limit_train_batches to the batches of an epoch."
            )
        # An epoch that is resumed does not start again.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches for this epoch."""
        self.acts = self.is_open(self.now(trainer))
        self.switch(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes whether the window is open for this batch."""
        self.acts = self.is_open(self.now(trainer))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Where it counts steps: logs what this batch was, and switches for the next one."""
        if self.unit == "step":
            is_active = any(one.acts for one in self._of_kind(trainer))
            pl_module.log(f"{self.kind}/active", float(is_active), on_step=True, on_epoch=False)
            self.switch(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores."""
        self.restore(trainer, pl_module)
        # By its time, by a stop that is asked for, or where the length of epochs was not known.
        if (done := self.now(trainer)) < self.needed and is_whole(trainer):
            rank_zero_warn(
                f"training has ended after {done} {self.unit}s, before the end of the window of "
                f"{self.described}.",
                stacklevel=2,
            )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restores."""
        self.restore(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs whether any window of this kind was open, where none counts steps."""
        # All windows log the same number, so the mean that Lightning takes of them is 0 or 1 too.
        of_kind = self._of_kind(trainer)
        if all(one.unit == "epoch" for one in of_kind):
            is_active = any(one.acts for one in of_kind)
            pl_module.log(f"{self.kind}/active", float(is_active), sync_dist=True)

    def _of_kind(self, trainer: pl.Trainer) -> list["Window"]:
        return [one for one in windows(trainer, Window) if one.kind == self.kind]


def windows(trainer: pl.Trainer, kind: type[W]) -> list[W]:
    """The windows of a class among a trainer's callbacks, in their order."""
    return [one for one in callbacks_of(trainer) if isinstance(one, kind)]


def open_windows(trainer: pl.Trainer, kind: type[W]) -> list[W]:
    """Those of them that are open now: in this epoch, or for the batch that comes next."""
    return [one for one in windows(trainer, kind) if one.is_open(one.now(trainer))]
