"""Whether validation falls on the last batch of every run of a study."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl

from critical_periods.core.errors import UserError
from critical_periods.core.trainer import batches_of_epochs, val_check_interval


def validate_cadence(trainer: pl.Trainer, data: Any, ends: Iterable[int]) -> None:
    """Refuses a cadence of validation that misses the last batch of some run.

    Final accuracies would be missing, or those of earlier epochs, before which a run may not
    differ from its control. Without validation at all (``limit_val_batches: 0``) there is nothing
    to miss.

    Args:
        trainer: with the settings of the run.
        data: that has been set up.
        ends: how many epochs the runs have.

    Raises:
        UserError: some run would end between two validations.
    """
    if trainer.limit_val_batches == 0:
        return
    every, interval = trainer.check_val_every_n_epoch, val_check_interval(trainer)
    missed = [end for end in sorted(set(ends)) if every is not None and end % every]
    if every is not None and missed:
        raise UserError(
            f"trainer.check_val_every_n_epoch={every} does not validate at the end of the runs of "
            f"{_listed(missed)} epochs; choose one that divides their number, such as 1."
        )
    # A share of 1.0 is all of an epoch; of a third party's data it is not known how long one is.
    is_whole = isinstance(interval, float) and interval == 1
    if is_whole or (interval is not None and not hasattr(data, "epochs")):
        return
    if interval is None:
        setting, counted = "a time as trainer.val_check_interval", "a run"
        way_out = "choose a number of batches, or 1.0"
    else:
        lengths = batches_of_epochs(trainer, data)
        # Lightning counts the batches of an epoch or, without `every`, those of the whole run.
        counts_run = every is None and len(set(lengths)) == 1
        counts = [end * lengths[0] for end in set(ends)] if counts_run else lengths
        is_share = isinstance(interval, float)
        steps = [max(1, int(count * interval)) if is_share else int(interval) for count in counts]
        if not any(count % step for count, step in zip(counts, steps, strict=True)):
            return
        setting = f"trainer.val_check_interval={interval}"
        counted = f"epochs of {_listed(sorted(set(lengths)))} batches"
        way_out = "choose one that divides their number, or 1.0"
    raise UserError(f"{setting} does not validate at the end of {counted}; {way_out}.")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
