"""Internals of Lightning, torch and jsonargparse that this package leans on, all in one place.

None of these is a promise of its package's, so each has a function here that says what it is for,
a test in ``tests/core/test_internals.py`` that notices when a release changes it, and an upper
bound on the package's version in ``pyproject.toml``.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

# Lightning and torch, in training.


def in_precision(trainer: pl.Trainer | None, batch: Any) -> Any:
    """A batch in half or double precision, as the Trainer's plugin makes of what a loader yields.

    Lightning converts the loader's own batches before they are moved to the device. The loaders of
    this package yield indices, so their batches are converted when they are made.
    """
    return batch if trainer is None else trainer.precision_plugin.convert_input(batch)


# jsonargparse and LightningCLI, before it.
