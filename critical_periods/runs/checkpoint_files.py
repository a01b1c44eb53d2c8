"""Lightning's checkpoints, whole or not there at all."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from critical_periods.core.files import replacing


class WholeCheckpointIO(TorchCheckpointIO):
    """Leaves no half of a checkpoint where the disk is full.

    Lightning's own writes it elsewhere first, and leaves what there was space for as it moves it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint; one that goes to another machine is left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as part:
            part.write_bytes(buffer.getbuffer())


def keep_checkpoints_whole(trainer: pl.Trainer) -> None:
    """Has a Trainer write so, unless its strategy or its plugins write in ways of their own."""
    strategy: Any = trainer.strategy
    is_known = isinstance(strategy, (DDPStrategy, SingleDeviceStrategy))
    if is_known and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = WholeCheckpointIO()
