"""The DataModule of an agent: which episodes are trained on, and which measured."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.data.batch_stage import BatchStage, Images
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices
from critical_periods.guidance.environment import Environment


class EnvironmentDataModule(BatchStage):
    """Episodes of an environment: an epoch of training is one batch of those played side by side.

    Validation is of the environment's ``val`` episodes, a number of each in a batch. Batches of
    either split, and what monitors measure, hold an observation of each episode as their view.

    Args:
        environment: such as ``FourRooms``.
        environments: episodes that are played side by side in training, over all processes.

    Raises:
        UserError: there are no environments.

    Example:
        >>> from critical_periods.guidance.four_rooms import FourRooms
        >>> data = EnvironmentDataModule(FourRooms(layouts=9, val_layouts=3), environments=4)
        >>> data.setup()
        >>> [len(draw.index) for draw in data.train_dataloader()]
        [4]
    """

    def __init__(self, environment: Environment, environments: int = 256) -> None:
        super().__init__()
        if environments < 1:
            raise UserError(
                f"environments={environments} of EnvironmentDataModule must be at least 1."
            )
        self.environment = environment
        self.environments = self.batch_size = environments

    def setup(self, stage: str | None = None) -> None:
        """Numbers the episodes; Lightning calls it, and calling again is safe."""
        sizes = self.environment.sizes
        self.splits = {split: (split, torch.arange(sizes[split])) for split in ("train", "val")}
        self.splits["test"] = self.splits["val"]

    def train_dataloader(self) -> EpochLoader:
        """One batch: the numbers of the environments, of which each process has its share."""
        return self._loader("train", self._numbers, training=True)

    def epochs(self, processes: int) -> list[EpochSampler]:
        """The one of training."""
        return [EpochSampler(self._numbers, self.environments, True, world_size=processes)]

    @property
    def _numbers(self) -> Tensor:
        return torch.arange(self.environments) % self.environment.sizes["train"]

    def contents(self) -> Iterator[Any]:
        """The environment."""
        yield from self.environment.contents()

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """An observation of each episode, on the device; the targets are not known."""
        numbers = batch.index.to(device)
        views = self.environment.samples(batch.part, batch.index, device)
        return batch._replace(index=numbers), Images(views, torch.full_like(numbers, -1))

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The observations as they are, [B, 1, ...]."""
        return pixels[:, None]
