"""The scheduler of deficits: in at one epoch, out at another."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.batch import find
from critical_periods.callbacks.samples import example_batch
from critical_periods.deficits import Deficit, DeficitSlot
from critical_periods.errors import UserError
from critical_periods.randomness import generator, global_seed

_DEFICIT = 4


class DeficitWindow(pl.Callback):
    """Puts a deficit into training at epoch ``onset`` and takes it out at epoch ``removal``.

    Where the DataModule has a slot for deficits (``datamodule.deficits``, a
    :class:`~critical_periods.deficits.DeficitSlot`), the deficit goes in there. In any other
    project the window changes what ``training_step`` receives: tuples, dicts, named tuples and
    nested pairs of images and targets (:func:`critical_periods.batch.find`). The data set, and
    the tensors that its loader hands out, stay as they are. Validation is never touched.

    Several windows may be open at once; their deficits act in the order of the callbacks. Random
    deficits draw from (seed, epoch, batch, rank). ``deficit/active`` is logged each epoch: 1 where
    any window is open. Works under a Trainer of ``pytorch_lightning`` and of ``lightning``.

    Args:
        deficit: what is wrong with the senses.
        onset: the first epoch with the deficit.
        removal: the first epoch without it; ``None`` means to the end.

    Raises:
        UserError: the window ends before it begins; before the first step of training, that it
            lies beyond the last epoch, or that the deficit cannot act on this project's batches.

    Example:
        >>> from critical_periods.deficits import Blur
        >>> window = DeficitWindow(Blur(factor=4, views=[1]), removal=60)
        >>> [window.is_open(epoch) for epoch in (0, 59, 60)]
        [True, True, False]
    """

    def __init__(self, deficit: Deficit, onset: int = 0, removal: int | None = None) -> None:
        if onset < 0:
            raise UserError(f"onset={onset} of DeficitWindow must not be negative.")
        if removal is not None and removal < onset:
            raise UserError(
                f"removal={removal} of DeficitWindow lies before its onset={onset}; choose a "
                f"removal of at least {onset}, or null for a deficit to the end."
            )
        self.deficit = deficit
        self.onset = onset
        self.removal = removal
        self._seed = 0
        self._batch_idx = 0
        self._is_checked = False
        self._unwrap: Callable[[], None] | None = None

    def is_open(self, epoch: int) -> bool:
        """Whether training has the deficit in this epoch."""
        return self.onset <= epoch and (self.removal is None or epoch < self.removal)

    @property
    def state_key(self) -> str:
        """What tells this window from others in a checkpoint: its deficit's settings and its onset.

        The removal is left out, so that a run that goes on with another one keeps the state.
        """
        return f"DeficitWindow({self.deficit}, onset={self.onset})"

    def state_dict(self) -> dict[str, Any]:
        """The seed of its draws and what its deficit has drawn once and for all."""
        return {"seed": self._seed, "deficit": self.deficit.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the seed and the deficit of the checkpoint."""
        self._seed = state_dict["seed"]
        self.deficit.load_state_dict(state_dict["deficit"])

    # Before training: everything that can be wrong is found now.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares the window with the run's epochs."""
        if stage != "fit":
            return
        # A checkpoint's seed is loaded after this and stays.
        self._seed = global_seed()
        epochs = trainer.max_epochs
        needed = self.onset + 1 if self.removal is None else self.removal
        is_trial = trainer.fast_dev_run  # type: ignore[attr-defined] # one epoch, whatever is set
        if epochs is not None and 0 <= epochs < needed and not is_trial:
            raise UserError(
                f"the window of DeficitWindow (onset={self.onset}, removal={self.removal}) reaches "
                f"beyond the last epoch of training: trainer.max_epochs={epochs}."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tries the deficit on samples of the training data, then takes its place."""
        _check_classes(trainer, self.deficit)
        self._is_checked = False
        example = example_batch(trainer)
        if example is not None:
            self._check(example)
        if _slot(trainer) is None and self is _windows(trainer)[0]:
            self._unwrap = _wrap_training_step(trainer, pl_module)
        # A run that is resumed within an epoch does not start that epoch again.
        self._fill(trainer, pl_module)

    # In training.

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fills the slot for this epoch."""
        self._fill(trainer, pl_module)

    def _fill(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        slot = _slot(trainer)
        if slot is not None:
            # Every window fills in the same deficits, so the order never depends on history.
            slot.fill(window.deficit.to(pl_module.device) for window in _open(trainer))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remembers the number of the batch, which names the draws of a random deficit."""
        self._batch_idx = batch_idx
        # A stranger's first batch is not looked at before its time, as that could use up a stream;
        # now no step has been taken yet, even if the window opens much later.
        if not self._is_checked:
            self._check(batch)

    def _check(self, batch: Any) -> None:
        found, _ = find(batch, self.deficit.edits_target)
        with isolate_rng():
            self.deficit.to(found.views.device).check(found)
        self._is_checked = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs whether any window was open."""
        # All windows log the same number, so the mean that Lightning takes of them is 0 or 1 too.
        pl_module.log("deficit/active", float(bool(_open(trainer))), sync_dist=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves no trace in the project."""
        slot = _slot(trainer)
        if slot is not None:
            slot.fill([])
        if self._unwrap is not None:
            self._unwrap()
            self._unwrap = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leaves no trace in the project."""
        self.on_train_end(trainer, pl_module)

    def _draws(self, trainer: pl.Trainer, device: torch.device) -> torch.Generator:
        place = [w is self for w in _windows(trainer)].index(True)
        words = (self._seed, trainer.current_epoch, self._batch_idx, trainer.global_rank)
        return generator(device, _DEFICIT, *words, place)


def _windows(trainer: pl.Trainer) -> list[DeficitWindow]:
    return [c for c in trainer.callbacks if isinstance(c, DeficitWindow)]  # type: ignore[attr-defined]


def _open(trainer: pl.Trainer) -> list[DeficitWindow]:
    return [window for window in _windows(trainer) if window.is_open(trainer.current_epoch)]


def _slot(trainer: pl.Trainer) -> DeficitSlot | None:
    slot = getattr(trainer.datamodule, "deficits", None)  # type: ignore[attr-defined]
    return slot if isinstance(slot, DeficitSlot) else None


def _check_classes(trainer: pl.Trainer, deficit: Deficit) -> None:
    """Compares a deficit's number of classes with the data's, where both say theirs."""
    available = getattr(trainer.datamodule, "num_classes", None)  # type: ignore[attr-defined]
    assumed = getattr(deficit, "num_classes", None)
    if isinstance(available, int) and isinstance(assumed, int) and available != assumed:
        raise UserError(
            f"num_classes={assumed} of {type(deficit).__name__} does not fit the data, which has "
            f"{available} classes; set it to {available}."
        )


def _wrap_training_step(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], None]:
    """Lets an instance's ``training_step`` receive batches with the deficits that are open.

    Returns:
        What undoes it.
    """
    step = pl_module.training_step
    if "dataloader_iter" in inspect.signature(step).parameters:
        raise UserError(
            f"training_step of {type(pl_module).__name__} takes dataloader_iter, so no deficit can "
            "be put into its batches; let it take batch, or give its DataModule a DeficitSlot."
        )

    @functools.wraps(step)
    def training_step(batch: Any, *args: Any, **kwargs: Any) -> Any:
        for window in _open(trainer):
            found, put_back = find(batch, window.deficit.edits_target)
            deficit = window.deficit.to(found.views.device)
            batch = put_back(deficit(found, window._draws(trainer, found.views.device)))
        return step(batch, *args, **kwargs)

    # Lightning looks one decorator deep for the arguments that a step takes.
    training_step.__wrapped__ = getattr(step, "__wrapped__", step)
    is_own = "training_step" in vars(pl_module)
    pl_module.training_step = training_step  # type: ignore[method-assign]

    def unwrap() -> None:
        del pl_module.training_step
        if is_own:
            pl_module.training_step = step  # type: ignore[method-assign]

    return unwrap
