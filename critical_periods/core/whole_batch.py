"""The batch of all processes, for draws that are about all of its samples."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """A generator for a process that has a part of a batch.

    It draws for this process alone. Whatever draws for all samples of the batch, or mixes them,
    does so by a :class:`WholeBatch`, in every process alike.

    Args:
        whole: the generator for the whole batch, alike in every process.
        sizes: samples in the part of each process.
        rank: of this process.
    """

    def __new__(cls, whole: torch.Generator, *args: Any, **settings: Any) -> Self:
        """On the device of the whole batch."""
        return super().__new__(cls, whole.device)  # type: ignore[call-arg]

    def __init__(self, whole: torch.Generator, sizes: Sequence[int], rank: int) -> None:
        self.whole, self.sizes, self.rank = whole, sizes, rank


class WholeBatch:
    """The batch that a batch is a part of, so that several processes draw what one would.

    With the generator of a single process, it is the batch itself.

    Args:
        rows: of this process: its samples, or as many for each (views, frames).
        generator: as deficits get it.

    Attributes:
        rows: of all processes.
        generator: of the draws about them.

    Example:
        >>> part = PartGenerator(torch.Generator().manual_seed(0), sizes=[1, 2], rank=1)
        >>> whole = WholeBatch(2, part)
        >>> draws = torch.rand(whole.rows, generator=whole.generator)
        >>> torch.equal(whole.part(draws), draws[1:])
        True
    """

    def __init__(self, rows: int, generator: torch.Generator | None) -> None:
        self.generator, self._rank, self._sizes = generator, 0, [rows]
        if isinstance(generator, PartGenerator):
            each = rows // generator.sizes[generator.rank]
            self.generator, self._rank = generator.whole, generator.rank
            self._sizes = [each * size for size in generator.sizes]
        self.rows = sum(self._sizes)

    def part(self, rows: Tensor) -> Tensor:
        """This process's rows of all."""
        return rows.split(self._sizes)[self._rank]

    def gather(self, part: Tensor) -> Tensor:
        """The rows of all processes, each of which has to ask."""
        return gather(part, self._sizes)


def gather(part: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of all processes, which have so many each, one process after the other."""
    if len(sizes) == 1:
        return part
    padded = part.new_zeros(max(sizes), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([rows[:size] for rows, size in zip(parts, sizes, strict=True)])
