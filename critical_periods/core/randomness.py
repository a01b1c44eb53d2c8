"""Random numbers that depend on names instead of on history.

A draw that must be the same after a restart, on another rank or in another batch cannot come from
a generator whose state depends on what was drawn before. Here every draw is a hash of the words
that name it: ``(seed, epoch, index)`` for the augmentation of a sample, ``(seed, epoch, batch,
rank)`` for everything drawn once a batch.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

# NumPy's, which Lightning seeds too.
LARGEST_SEED = 2**32 - 1

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def global_seed() -> int:
    """The seed of this run: Lightning's ``PL_GLOBAL_SEED``, or 0 where nothing was seeded.

    ``seed_everything`` (and ``seed_everything:`` in a config) sets it, and every rank sees the
    same one. The default of 0 is that of Lightning's own distributed sampler.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def fold(*words: int) -> int:
    """A hash of some whole numbers, fit to seed a generator.

    SplitMix64's finaliser (Steele, Lea & Flood 2014), applied word by word.

    Args:
        words: whole numbers, negative ones included; their order matters.

    Returns:
        A number in [0, 2**63).

    Example:
        >>> fold(0, 1) == fold(0, 1), fold(0, 1) == fold(1, 0)
        (True, False)
    """
    state = 0
    for word in words:
        state = (state + _GOLDEN + (word & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device | str, *words: int) -> torch.Generator:
    """A fresh generator on a device, seeded with the hash of the words."""
    return torch.Generator(device=device).manual_seed(fold(*words))


def uniform(index: Tensor, draws: int, *words: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on nothing but the words and each sample's index.

    Args:
        index: places of samples in the data set, whole numbers, [B].
        draws: how many numbers a sample needs.
        words: what else names the draws, such as the seed and the epoch.

    Returns:
        float32 [B, draws] on the device of ``index``: the same row for the same index, whichever
        batch, rank or device it is drawn in.

    Example:
        >>> a = uniform(torch.tensor([3, 7]), 2, 0, 1)
        >>> b = uniform(torch.tensor([7]), 2, 0, 1)
        >>> torch.equal(a[1:], b)
        True
    """
    counter = torch.arange(draws, device=index.device)
    state = _mix(index.to(torch.int64)[:, None] * draws + counter + _signed(fold(*words)))
    return (state >> 40 & 0xFFFFFF).to(torch.float32) / (1 << 24)


def _mix(state: Tensor) -> Tensor:
    # int64 products wrap like uint64 ones; its right shift copies the sign bit, so mask that off.
    state = state + _signed(_GOLDEN)
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * _signed(_FIRST)
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * _signed(_SECOND)
    return state ^ (state >> 31 & (1 << 33) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
