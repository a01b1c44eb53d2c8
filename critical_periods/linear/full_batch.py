"""The DataModule of data so small that all of it is one batch."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.data.batch_stage import BatchStage, Images, buffers
from critical_periods.data.epochs import EpochLoader, Indices


class FullBatchDataModule(BatchStage):
    """One batch, the same to train on, to validate on and to test on, in every process.

    A subclass gives the batch (:meth:`load`).
    """

    @abstractmethod
    def load(self) -> Batch:
        """The batch, on the CPU, its samples numbered from 0, its targets those of all views."""

    @cached_property
    def batch(self) -> Batch:
        """The batch, clean, on the CPU."""
        return self.load()

    def setup(self, stage: str | None = None) -> None:
        """Loads the batch; Lightning calls it, and calling again is safe."""
        self.batch_size = len(self.batch.index)
        everything = torch.arange(self.batch_size)
        self.splits = {split: ("all", everything) for split in ("train", "val", "test")}

    def contents(self) -> Iterator[Any]:
        """The batch."""
        return buffers(self.batch)

    @property
    def place(self) -> tuple[int, int]:
        """Every process has the whole batch, as if it were the only one."""
        return 0, 1

    def measurement_loader(
        self, split: str, samples: int | None = None, shared: bool = False
    ) -> EpochLoader:
        """The first samples of the batch, clean, in every process; all by default."""
        part, index = self._split(split)
        return self._loader(part, index[:samples])

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The samples that a loader named, on the device."""
        pixels, target, *_ = (part[batch.index].to(device) for part in self.batch)
        return batch._replace(index=batch.index.to(device)), Images(pixels, target)

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The views as they are."""
        return pixels
