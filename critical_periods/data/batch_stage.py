"""The way from the numbers of samples to a batch, which all DataModules share."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.internals import in_precision, resume_in_place, under_both_names
from critical_periods.core.randomness import FIXED_SEED, Stream, fold, generator, global_seed
from critical_periods.core.trainer import is_ours
from critical_periods.core.whole_batch import PartGenerator, gather
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices
from critical_periods.data.last_batch import fails_in_step, validate_last_batch
from critical_periods.deficits.deficit import DeficitSlot


class Images(NamedTuple):
    """Labelled pictures: uint8 [N, C, H, W] and class numbers [N]."""

    pixels: Tensor
    target: Tensor


@under_both_names
class BatchStage(pl.LightningDataModule):
    """A DataModule that makes its batches on the device, in one order for all data.

    The way of a batch is::

        sampler → Indices → device → augment → normalise → deficits → crop → Batch

    Loaders yield :class:`.Indices`, the numbers of the samples of a batch. All that is random about
    a sample is drawn from (seed, epoch, index), whichever batch or process it falls in; all that is
    random about a batch from (seed, epoch, batch), or, where each process draws for its own part,
    from (seed, epoch, batch, rank). Deficits act on images that are augmented
    and normalised, but not yet cropped (Kleinman, Achille & Soatto, CVPR 2023, A.5).

    A subclass sets ``splits`` in its ``setup`` and defines the abstract methods; it may
    :meth:`crop` the views and :meth:`finish` the batch.

    Attributes:
        batch_size: samples in a batch of one process.
        deficits: the slot that :class:`~critical_periods.callbacks.DeficitWindow` fills.
        splits: of ``train``, ``val`` and ``test``, which part of the stored data each is taken
            from, and the samples' places there, [N].
    """

    batch_size: int

    def __init__(self) -> None:
        super().__init__()
        self.deficits = DeficitSlot()
        self.splits: dict[str, tuple[str, Tensor]] = {}

    @abstractmethod
    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The views of samples, normalised and, in training, augmented, [B, V, C, H, W]."""

    @abstractmethod
    def contents(self) -> Iterable[Any]:
        """What tells this data from other data, as buffers for the fingerprint."""

    def maker(self, draw: Indices) -> "BatchStage":
        """Whose views samples have: its own."""
        return self

    def crop(self, views: Tensor) -> Tensor:
        """What each view sees of its image, [B, V, C, H, W]: all of it."""
        return views

    def finish(self, batch: Batch, draw: Indices) -> Batch:
        """What is done to a training batch at the end: nothing."""
        return batch

    def train_dataloader(self) -> EpochLoader:
        """The training split, in a new order each epoch."""
        return self._loader(*self._split("train"), training=True)

    def epochs(self, processes: int) -> list[EpochSampler]:
        """One sampler for each length that training epochs have, in so many processes."""
        _, index = self._split("train")
        return [EpochSampler(index, self.batch_size, training=True, world_size=processes)]

    def val_dataloader(self) -> EpochLoader:
        """The validation split."""
        return self._loader(*self._split("val"))

    def test_dataloader(self) -> EpochLoader:
        """The test split."""
        return self._loader(*self._split("test"))

    def predict_dataloader(self) -> EpochLoader:
        """The test split."""
        return self.test_dataloader()

    def measurement_loader(
        self, split: str, samples: int | None = None, shared: bool = False
    ) -> EpochLoader:
        """Clean samples to measure on: no augmentation, no deficit.

        Args:
            split: ``train``, ``val`` or ``test``.
            samples: how many, spread over the split by one fixed permutation, so that every epoch
                and every run measures on the same ones; all by default.
            shared: whether every process gets all of them; by default each its share.
        """
        part, index = self._split(split)
        chosen = index[fixed_order(len(index))[:samples]]
        return self._loader(part, chosen, shared=shared)

    def _split(self, name: str) -> tuple[str, Tensor]:
        if name not in self.splits:
            raise UserError(f"split={name!r} is not one of 'train', 'val' and 'test'.")
        return self.splits[name]

    def _loader(
        self, part: str, index: Tensor, training: bool = False, shared: bool = False
    ) -> EpochLoader:
        if training and self.trainer is not None:
            resume_in_place(self.trainer)
            self._validate_last_batch(self.trainer)
        place = (0, 1) if shared else self.place
        sampler = EpochSampler(index, self.batch_size, training, global_seed(), *place)
        return self.make_loader(part, sampler)

    def _validate_last_batch(self, trainer: pl.Trainer) -> None:
        """Tries the step of a third party's module before the first; our tasks try theirs."""
        module = trainer.lightning_module
        if module is None or is_ours(module) or trainer.global_step:
            return
        fails = partial(fails_in_step, module, self)
        validate_last_batch(type(module).__name__, trainer, self, trainer.world_size, fails)

    def make_loader(self, part: str, sampler: EpochSampler) -> EpochLoader:
        """A loader of the batches that a sampler draws from a part of the stored data."""
        return EpochLoader(part, sampler)

    @property
    def place(self) -> tuple[int, int]:
        """Which process this is, and of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @abstractmethod
    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The samples that a loader names, on the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Augments, normalises, applies deficits and crops, all samples at once."""
        draw, images = batch
        maker = self.maker(draw)
        views = maker.views(images.pixels, draw)
        result = Batch(views, images.target, torch.full_like(draw.index, -1), draw.index)
        result = self._with_deficits(result, draw)
        result = result._replace(views=maker.crop(result.views))
        if draw.in_training:
            result = maker.finish(result, draw)
        return in_precision(self.trainer, result)

    def _with_deficits(self, batch: Batch, draw: Indices) -> Batch:
        if not draw.in_training:
            # Measurements take the same samples as validation, but outside of its loop.
            if not self.deficits.in_validation or self.trainer is None:
                return batch
            if not self.trainer.validating:
                return batch
        return self.deficits(batch, self._draws(batch, draw), not draw.in_training)

    def _draws(self, batch: Batch, draw: Indices) -> torch.Generator:
        """The generator for a batch, which knows of the parts that other processes have of it."""
        device, (rank, processes) = batch.views.device, self.place
        key = (Stream.DEFICIT, global_seed(), draw.epoch, draw.batch)
        whole = generator(device, *key, 0)
        if processes == 1:
            return whole
        sizes = [len(batch.index)] * processes
        if not draw.in_training:
            sizes = gather(torch.tensor(sizes[:1], device=device), [1] * processes).tolist()
        own = PartGenerator(whole, sizes, rank)
        return own.manual_seed(fold(*key, rank))

    def fingerprint(self) -> str:
        """A hash of the data: the same for the same data, wherever it lies."""
        digest = hashlib.sha256()
        for buffer in self.contents():
            digest.update(buffer)
        return digest.hexdigest()


def fixed_order(count: int) -> Tensor:
    """One permutation of ``count`` samples, the same in every run, whatever its seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(FIXED_SEED))


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels of 0 to 255 less their mean, over their standard deviation.

    Args:
        pixels: uint8 [..., C, H, W].
        mean: of each channel, in 0 to 1, C.
        std: of each channel, in 0 to 1, C.

    Returns:
        float32 [..., C, H, W].

    Example:
        >>> normalise(torch.tensor([[[0, 255]]], dtype=torch.uint8), [0.5], [0.25])
        tensor([[[-2.,  2.]]])
    """
    centre, scale = (
        torch.tensor(values, device=pixels.device).view(-1, 1, 1) * 255 for values in (mean, std)
    )
    return (pixels - centre) / scale


def buffers(tensors: Iterable[Tensor]) -> Iterator[Any]:
    """Types, shapes and values of tensors, as buffers for a fingerprint."""
    for tensor in tensors:
        yield str((tensor.dtype, tuple(tensor.shape))).encode()
        yield tensor.contiguous().numpy().data
