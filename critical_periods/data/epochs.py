"""Which samples make up which batch, as a function of the seed and the epoch alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import FIXED_SEED, fold, global_seed


class Indices(NamedTuple):
    """The numbers of the samples of a batch: what a loader yields.

    Attributes:
        part: of the stored data that the samples are taken from, such as ``train`` or ``test``.
        epoch: the epoch of training, or -1 for evaluation: no augmentation, no deficit.
        batch: the number of the batch within its epoch.
        index: the samples' places in the part, [B].
    """

    part: str
    epoch: int
    batch: int
    index: Tensor  # type: ignore[assignment] # hides tuple.index

    @property
    def in_training(self) -> bool:
        """Whether the samples are trained on, so that they are augmented and have deficits."""
        return self.epoch >= 0

    @property
    def key(self) -> tuple[int, int]:
        """What draws of a sample depend on beside their stream and its index.

        In training (seed, epoch). In evaluation the draws are the same in every run; there a sample
        of the part ``test`` draws other numbers than a training sample of the same index.
        """
        if self.in_training:
            return global_seed(), self.epoch
        return FIXED_SEED, int(self.part == "test")


@dataclass(eq=False)
class EpochSampler:
    """The order of every epoch, this process's share of it, and where to go on after a restart.

    Any number of processes sees the same global batches, of ``batch_size * world_size``, and each
    takes a part. In training, epoch e is one permutation drawn from (seed, e), and the parts are
    equal; the last global batch is smaller (with several processes, by up to ``world_size - 1``
    samples, so that its parts stay equal). In evaluation the order is fixed, every sample occurs
    exactly once, and all processes make equally many batches, of sizes that differ by at most one
    and are never 0 (so where ``batch_size`` is 1 and the processes' shares differ, a few batches
    hold 2).

    Args:
        index: the samples, [N].
        batch_size: samples in a batch of one process.
        training: whether the order changes with each epoch.
        seed: of the training order.
        rank: which process this is.
        world_size: how many there are.

    Raises:
        UserError: there are fewer samples than processes, or the batch size is not positive.

    Example:
        >>> sampler = EpochSampler(torch.arange(10), batch_size=4, training=True, seed=0)
        >>> [len(batch) for batch in sampler]
        [4, 4, 2]
        >>> first = torch.cat(list(sampler))
        >>> sampler.set_epoch(1)
        >>> torch.equal(first, torch.cat(list(sampler)))
        False
    """

    index: Tensor
    batch_size: int
    training: bool
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size} must be at least 1.")
        if len(self.index) < self.world_size:
            raise UserError(
                f"{len(self.index)} samples cannot be shared by {self.world_size} processes; use "
                "more data or fewer devices."
            )
        self.epoch = self._resume_epoch = self._skip = self._yielded = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        samples = len(self.index)
        if self.training:
            samples -= samples % self.world_size
        full = math.ceil(samples / (self.batch_size * self.world_size))
        return min(full, samples // self.world_size)

    @property
    def last_size(self) -> int:
        """Samples in this process's last training batch."""
        samples = len(self.index) - len(self.index) % self.world_size
        whole = self.batch_size * self.world_size
        return (samples % whole or min(samples, whole)) // self.world_size

    def __iter__(self) -> Iterator[Tensor]:
        # Everything happens at the first draw: Lightning makes the iterator before it sets the
        # epoch when it resumes.
        skip = self._skip if self._resume_epoch == self.epoch else 0
        self._skip = 0
        for number, batch in enumerate(self._batches()):
            if number >= skip:
                self._yielded = number + 1
                yield batch

    def _batches(self) -> Iterator[Tensor]:
        if self.training:
            order = torch.Generator().manual_seed(fold(self.seed, self.epoch))
            shuffled = self.index[torch.randperm(len(self.index), generator=order)]
            shuffled = shuffled[: len(shuffled) - len(shuffled) % self.world_size]
            batches = shuffled.split(self.batch_size * self.world_size)
        else:
            batches = self.index.tensor_split(len(self))
        begin, world = 0, self.world_size
        for batch in batches:
            # Where it cannot be shared equally, processes have one sample more in turn.
            sizes = [len(range((rank - begin) % world, len(batch), world)) for rank in range(world)]
            yield batch.split(sizes)[self.rank]
            begin += len(batch)

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches are done."""
        return {"epoch": self.epoch, "batches": self._yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on in the middle of an epoch: its batches that are done are left out."""
        self._yielded = state["batches"]
        self.epoch = self._resume_epoch = state["epoch"]
        self._skip = self._yielded % len(self)


class EpochLoader:
    """An iterable of :class:`Indices`: a data loader without workers, for data in memory.

    It carries its sampler where Lightning looks for one, and its state, so that a checkpoint in
    the middle of an epoch resumes with the next batch.

    Args:
        part: of the stored data that the samples are taken from.
        sampler: which of them make up which batch.

    Example:
        >>> loader = EpochLoader("train", EpochSampler(torch.arange(5), 2, training=True))
        >>> len(loader), [draw.batch for draw in loader]
        (3, [0, 1, 2])
    """

    def __init__(self, part: str, sampler: EpochSampler) -> None:
        self.part, self.sampler = part, sampler
        # Lightning asks every loader that has a sampler for this one too.
        self.batch_sampler = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Indices]:
        for index in self.sampler:
            epoch = self.sampler.epoch if self.sampler.training else -1
            yield Indices(self.part, epoch, self.sampler.state_dict()["batches"] - 1, index)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state; Lightning keeps it in every checkpoint."""
        return dict(self.sampler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the sampler's state."""
        self.sampler.load_state_dict(state)
