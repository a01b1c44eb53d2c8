"""Random numbers that depend on a key instead of on what was drawn before.

So they are the same after a restart, on another rank or in another batch. Every draw is a hash of
its key, some whole numbers: the stream and (seed, epoch, index) for the augmentation of a sample,
the stream and (seed, epoch, batch, rank) for everything drawn once a batch.
"""

import os
from enum import IntEnum

import torch
from torch import Tensor

# In the place of a run's seed where all runs draw the same: subsets, samples to measure on, and
# whatever is drawn for evaluation.
FIXED_SEED = 20190

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


class Stream(IntEnum):
    """What is drawn: a part of every key, so that no two draws of one (seed, epoch) are alike.

    The numbers are part of the bits of every run and never change; a new stream takes a free one.
    """

    AUGMENTATION = 1  # shift and flip of a sample in memory
    VIEW_MASK = 2  # which view a sample loses
    DEFICIT = 3  # deficits in the slot of a DataModule
    THIRD_PARTY_DEFICIT = 4  # deficits of DeficitWindow in a project without a slot
    DOTS = 5  # of stereograms
    SCENE = 6  # ground and place of a moving digit
    MOTION = 7  # its direction
    FRAME_PAIR = 11  # which two frames of a video
    FRAME_BOX = 12  # which part of them
    SUBSTITUTE = 13  # the video in the place of a broken one
    FRAME_FLIP = 14  # of both frames of a video
    MIXING = 15  # mixup and CutMix
    RAND_AUGMENT = 16  # of both frames of a video
    SUBSET_SIMULATION = 31  # first points and chains
    INITIAL_DESIGN = 32  # of active learning
    DEEP_KERNEL = 33  # the weights that a network starts from
    FOLDS = 34  # of cross-validation
    ROOM_LAYOUT = 35  # where the doorways, key, goal and start of four rooms are
    ROOM_STATES = 36  # in which states an agent is measured
    FACE = 50  # its expression and style
    FACE_POSE = 51
    FACE_NOISE = 52  # of its pixels
    ROTATION = 53  # turn, tone and place of the crop of a picture in memory
    SOURCE = 54  # which samples of another data set stand for those of this one
    PERTURBATION = 60  # of weights, by ShrinkPerturb
    NEW_WEIGHTS = 61  # of layers and units that are reset
    STRENGTH_ORDER = 62  # of a deficit whose strengths come in another order
    CORRUPTION = 63  # noise of RobustnessMonitor
    CANDIDATES = 70  # points of a large lattice that an adaptive study looks at
    HIDDEN_PATCHES = 2022  # of masked reconstruction
    MONITORED_PATCHES = 2023  # which patches ReconstructionMonitor hides
    OTHER_MATRIX = 2024  # the matrix that comes first
    OBSERVED_ENTRIES = 2025  # of the matrix that is to be completed
    # The matrix itself. It is the second part of its key, so that the number may occur above.
    MATRIX = 2023


def global_seed() -> int:
    """The seed of this run: Lightning's ``PL_GLOBAL_SEED``, or 0 where nothing was seeded.

    ``seed_everything`` (and ``seed_everything:`` in a config) sets it, and every rank sees the
    same one. The default of 0 is that of Lightning's own distributed sampler.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def fold(*key: int) -> int:
    """A hash of some whole numbers, fit to seed a generator.

    SplitMix64's finaliser (Steele, Lea & Flood 2014), applied number by number.

    Args:
        key: whole numbers, negative ones included; their order matters.

    Returns:
        A number in [0, 2**63).

    Example:
        >>> fold(0, 1) == fold(0, 1), fold(0, 1) == fold(1, 0)
        (True, False)
    """
    state = 0
    for number in key:
        state = (state + _GOLDEN + (number & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A fresh generator on a device, seeded with the hash of a key."""
    return torch.Generator(device=device).manual_seed(fold(*key))


def uniform(index: Tensor, draws: int, *key: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on nothing but a key and each sample's index.

    Args:
        index: places of samples in the data set, whole numbers, [B].
        draws: how many numbers a sample needs.
        key: what else the draws depend on: a :class:`Stream`, the seed, the epoch.

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
    state = index.to(torch.int64)[:, None] * draws + counter + _signed(fold(*key))
    # int64 products wrap like uint64 ones; its right shift copies the sign bit, so mask that off.
    state = state + _signed(_GOLDEN)
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * _signed(_FIRST)
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * _signed(_SECOND)
    state = state ^ (state >> 31 & (1 << 33) - 1)
    return (state >> 40 & 0xFFFFFF).to(torch.float32) / (1 << 24)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
