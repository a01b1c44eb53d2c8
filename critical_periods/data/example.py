"""Two samples of a DataModule, for the checks before a run trains."""

from typing import Any

import pytorch_lightning as pl

from critical_periods.core.batch import Batch


def two_samples(data: Any, module: pl.LightningModule) -> Batch:
    """Two clean training samples of a DataModule that can give them, as a module takes them now.

    Lightning converts a model to half or double precision only when it trains it; until then, the
    views have the type of its parameters.
    """
    draw = next(iter(data.measurement_loader("train", 2, shared=True)))
    moved = data.transfer_batch_to_device(draw, module.device, 0)
    batch: Batch = data.on_after_batch_transfer(moved, 0)
    dtype = next((one.dtype for one in module.parameters()), batch.views.dtype)
    return batch._replace(views=batch.views.to(dtype))
