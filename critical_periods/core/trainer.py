"""How far a Lightning Trainer trains."""

from __future__ import annotations

import pytorch_lightning as pl


def ends_before(trainer: pl.Trainer, epochs: int) -> bool:
    """Whether a run has fewer epochs than these.

    A training that is but a part of a run (a study's segment) has a callback with an attribute
    ``run_epochs``, which says how many epochs the whole run has.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined] # one epoch, whatever is set
        return False
    lengths = [getattr(one, "run_epochs", None) for one in trainer.callbacks]  # type: ignore[attr-defined]
    last = next((length for length in lengths if length is not None), trainer.max_epochs)
    return last is not None and 0 <= last < epochs
