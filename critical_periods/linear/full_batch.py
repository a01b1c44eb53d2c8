"""The DataModule of data so small that all of it is one batch."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.core.batch import Batch
from critical_periods.core.randomness import generator, global_seed
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices
from critical_periods.deficits.deficit import DeficitSlot

_DEFICIT = 3


class WholeDataModule(pl.LightningDataModule):
    """One batch for everything: to train on, with its deficits, and to validate on, without.

    A subclass gives the batch (:meth:`load`).

    Attributes:
        deficits: where deficits go in and come out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deficits = DeficitSlot()
        self._batch: Batch | None = None

    @abstractmethod
    def load(self) -> Batch:
        """The batch, on the CPU."""

    @property
    def batch(self) -> Batch:
        """The batch, clean, on the CPU."""
        if self._batch is None:
            self._batch = self.load()
        return self._batch

    def fingerprint(self) -> str:
        """A hash of the batch: the same for the same data."""
        digest = hashlib.sha256()
        for part in self.batch:
            digest.update(str((part.dtype, tuple(part.shape))).encode())
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def train_dataloader(self) -> EpochLoader:
        """The batch; its samples in a new order each epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> EpochLoader:
        """The same batch, clean."""
        return self._loader("val")

    def test_dataloader(self) -> EpochLoader:
        """The same batch, clean."""
        return self._loader("test")

    def predict_dataloader(self) -> EpochLoader:
        """The same batch, clean."""
        return self._loader("test")

    def measurement_loader(
        self, split: str, samples: int | None = None, shared: bool = False
    ) -> EpochLoader:
        """The first samples of the batch, clean, in every process; all by default."""
        return self._loader(split, samples=samples)

    def _loader(
        self, split: str, training: bool = False, samples: int | None = None
    ) -> EpochLoader:
        index = torch.arange(len(self.batch.index))[:samples]
        return EpochLoader(split, EpochSampler(index, len(index), training, global_seed()))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Batch]:
        """The samples that a loader named, on the device."""
        chosen = Batch(*(part[batch.index].to(device) for part in self.batch))
        return batch, chosen

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Applies the deficits in training."""
        draw, result = batch
        if draw.epoch >= 0:
            words = (_DEFICIT, global_seed(), draw.epoch, draw.batch, 0)
            result = self.deficits(result, generator(result.views.device, *words))
        # Lightning converts to half or double precision what a loader yields: here, indices.
        return self.trainer.precision_plugin.convert_input(result) if self.trainer else result
