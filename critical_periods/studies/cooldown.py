"""The end of each run of a ladder: the learning rate goes to zero within some epochs."""

import math
import warnings
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.callbacks.learning_rate_restart import LearningRateRestart
from critical_periods.callbacks.remedies.rate_change import RateChange
from critical_periods.core.errors import UserError
from critical_periods.core.internals import connect
from critical_periods.core.trainer import batches_of_epochs, callbacks_of, is_ours

_FIGHTS = "would fight windows.cooldown, as the rungs of a ladder leave a trunk of constant rate"


class Cooldown(pl.Callback):
    """The learning rates of the last epochs of a run, multiplied by a factor that goes to zero.

    In batch b of the B batches of an epoch, e epochs after the first of them, it is

        1 - (e + b / B) / epochs,

    so that warm-up, stable rate and decay follow each other (Hu et al. 2024, arXiv 2404.06395;
    Hägele et al. 2024, arXiv 2405.18392). It depends on the place in the run alone, and between two
    steps all rates are as the run itself has set them, in checkpoints, too: going on from one
    within the cooldown is exact. Where epochs have no length, the factor stays the same in each.

    Args:
        stop: the epoch after the last one.
        epochs: how many there are.

    Raises:
        UserError: in training, the run changes its rates by itself.

    Example:
        >>> [Cooldown(stop=40, epochs=5).factor(epoch, 0.5) for epoch in (34, 35, 39)]
        [1.0, 0.9, 0.1]
    """

    def __init__(self, stop: int, epochs: int) -> None:
        self.stop, self.epochs = stop, epochs
        self._now = 1.0

    def factor(self, epoch: int, done: float) -> float:
        """The factor in an epoch of which a share is done."""
        return min(1.0, (self.stop - epoch - done) / self.epochs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Has each step taken at the rates of the cooldown."""
        for optimizer in trainer.optimizers:
            rates: list[Any] = []

            def lower(one: torch.optim.Optimizer, *_: Any, rates: list[Any] = rates) -> None:
                found = [group["lr"] for group in one.param_groups]
                if rates and rates != found:
                    change = f"{rates[0]:.3g} to {found[0]:.3g}"
                    raise UserError(f"the learning rate, which goes from {change}, {_FIGHTS}.")
                rates[:] = found
                for group in one.param_groups:
                    group["lr"] = group["lr"] * self._now

            def restore(one: torch.optim.Optimizer, *_: Any, rates: list[Any] = rates) -> None:
                for group, rate in zip(one.param_groups, rates, strict=True):
                    group["lr"] = rate

            optimizer.register_step_pre_hook(lower)
            optimizer.register_step_post_hook(restore)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes the factor of this batch."""
        self._now = self.factor(trainer.current_epoch, batch_idx / trainer.num_training_batches)


def validate_constant_rate(
    trainer: pl.Trainer, model: pl.LightningModule, data: Any, first: int, epochs: int
) -> None:
    """Refuses a run that changes its learning rate after an epoch.

    A warm-up that has ended by then is none of that. What a third party's module says only in
    training is refused there, by :class:`Cooldown`.

    Args:
        trainer: with the settings of the run, after its dry run.
        model: the run's.
        data: that has been set up.
        first: the epoch from which on the rate must stay.
        epochs: of the longest run.

    Raises:
        UserError: a scheduler goes on to change the rate, or a callback does, or starts one over.
    """
    if any(isinstance(one, LearningRateRestart) for one in callbacks_of(trainer)):
        raise UserError(f"LearningRateRestart {_FIGHTS}; leave it out.")
    for one in callbacks_of(trainer):
        if isinstance(one, RateChange) and one.onset > first:
            raise UserError(f"{one.described} {_FIGHTS}; leave it out, or let it begin before.")
    if not is_ours(model):
        with suppress(Exception):  # What it needs beside its setup is not known.
            connect(trainer, model, data)
    way_out = "set model.init_args.lr_scheduler to null, or let it end before"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in trainer.lr_scheduler_configs:
            scheduler: Any = one.scheduler
            name = f"lr_scheduler ({type(scheduler).__name__})"
            if one.reduce_on_plateau:
                raise UserError(f"{name} follows a measure and {_FIGHTS}; {way_out}.")
            steps = 1
            if one.interval == "step":
                steps = max(batches_of_epochs(trainer, data)) if hasattr(data, "epochs") else 1
            rates = scheduler.get_last_lr()
            for epoch in range(1, epochs):
                before = rates
                try:
                    for _ in range(steps):
                        scheduler.step()
                except Exception as error:  # Such as one that asks for batches in training.
                    raise UserError(
                        f"what {name} does is only known in training, and it {_FIGHTS}; {way_out}."
                    ) from error
                rates = scheduler.get_last_lr()
                same = map(math.isclose, before, rates)
                if epoch > first and not all(same):
                    raise UserError(
                        f"{name} changes the learning rate from {before[0]:.3g} to {rates[0]:.3g} "
                        f"after epoch {epoch - 1} and {_FIGHTS}; {way_out}."
                    )
