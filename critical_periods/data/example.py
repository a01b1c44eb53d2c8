"""Two samples of a DataModule, for the checks before a run trains."""

from typing import Any

import torch

from critical_periods.core.batch import Batch


def two_samples(data: Any, device: torch.device) -> Batch:
    """Two clean training samples of a DataModule that can give them, without a Trainer."""
    draw = next(iter(data.measurement_loader("train", 2, shared=True)))
    batch: Batch = data.on_after_batch_transfer(data.transfer_batch_to_device(draw, device, 0), 0)
    return batch
