"""Everything of a run but the training: what would go wrong in it is found first."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from critical_periods.callbacks import DeficitWindow, SourceVarianceMonitor


def rehearse(trainer: pl.Trainer, model: pl.LightningModule, data: Any) -> None:
    """Sets a run up as Lightning would, and tries its callbacks on two samples.

    Of the model and the callbacks, those of this package are tried: what others do in their
    ``setup`` is not known. The data is loaded, which it is but once.

    Args:
        trainer: of a single device; it must not be the one that trains.
        model: the task.
        data: the DataModule, if there is one.

    Raises:
        UserError: something does not fit.
    """
    if data is not None:
        data.prepare_data()
        data.setup("fit")
        trainer.datamodule = data  # type: ignore[attr-defined]
    is_known = data is not None and hasattr(data, "measurement_loader")
    if _is_ours(model):
        model.trainer = trainer
        model.setup("fit")
        trainer.strategy.connect(model)
        trainer.strategy.setup_optimizers(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not _is_ours(callback) or not _is_ours(model):
            continue
        callback.setup(trainer, model, "fit")
        callback.on_fit_start(trainer, model)
        if is_known and isinstance(callback, (DeficitWindow, SourceVarianceMonitor)):
            draw = next(iter(data.measurement_loader("train", 2)))
            images = data.transfer_batch_to_device(draw, model.device, 0)
            batch = data.on_after_batch_transfer(images, 0)
            if isinstance(callback, DeficitWindow):
                callback.deficit.check(batch)
            else:
                callback.look_at(model, batch)


def _is_ours(part: object) -> bool:
    """Whether a class is of this package, so that it is known what its ``setup`` does."""
    return type(part).__module__.startswith("critical_periods.")
