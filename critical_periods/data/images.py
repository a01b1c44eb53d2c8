"""The DataModule of images in memory: whole batches, on the device, in the order of the papers."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import generator, global_seed, uniform
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices
from critical_periods.deficits.deficit import DeficitSlot

Augment = Literal["shared", "per_view", "none"]

# Streams of random numbers that must not repeat one another's draws.
_AUGMENT, _MASK, _DEFICIT = 1, 2, 3
# Subsets and measurement samples are the same in every run, whatever its seed.
_FIXED = 20190


class Images(NamedTuple):
    """Labelled pictures: uint8 [N, C, H, W] and class numbers [N]."""

    pixels: Tensor
    target: Tensor


class ImageDataModule(pl.LightningDataModule):
    """Images as uint8 tensors; loaders of indices; everything else on whole batches, on the device.

    A batch goes through augmentation (padded random crop, flip), normalising, deficits (training
    only) and, in stereo modules, the crop of each view: the order of Kleinman et al. 2023, A.5.
    Augmentation is drawn from (seed, epoch, index of the sample), so it does not depend on the
    batch or the process that the sample falls in.

    A subclass gives the images (:meth:`load`) and their constants.

    Args:
        batch_size: samples in a batch of one process.
        limit_train: size of a fixed, class-balanced subset of the training images; all by default.
        val_split: how many training images (a whole number), or what share of them (below 1), to
            hold back for validation; by default none, and the test split validates, as in the
            papers.
        augment: ``shared``: one crop and flip a sample, for all its views; ``per_view``: each view
            its own; ``none``.
        device_resident: whether the images live on the accelerator; by default if they fit into
            half of its free memory.

    Raises:
        UserError: ``augment`` is none of the three; by :meth:`setup`, before training, a setting
            that does not fit the data.

    Attributes:
        deficits: where deficits go in and come out.
        share: of the training images that the coming epoch sees;
            :class:`~critical_periods.callbacks.SubsetWindow` says it.
        num_views: V.
        num_classes: K, that of the data from :meth:`setup` on.
    """

    num_views: int = 1
    num_classes: int = 10
    mean: Sequence[float]
    std: Sequence[float]
    padding: int
    flip: bool

    def __init__(
        self,
        batch_size: int = 128,
        limit_train: int | None = None,
        val_split: float = 0,
        augment: Augment = "shared",
        device_resident: bool | None = None,
    ) -> None:
        super().__init__()
        if augment not in get_args(Augment):
            raise UserError(f"augment={augment!r} is unknown; {near(augment, get_args(Augment))}")
        self.batch_size = batch_size
        self.limit_train = limit_train
        self.val_split = val_split
        self.augment = augment
        self.device_resident = device_resident
        self.deficits = DeficitSlot()
        self.share: Callable[[], float] | None = None
        self._images: dict[str, Images] = {}
        self._splits: dict[str, tuple[str, Tensor]] = {}
        self._resident: dict[tuple[str, torch.device], Images] = {}

    @abstractmethod
    def load(self) -> tuple[Images, Images]:
        """The training and the test images."""

    def setup(self, stage: str | None = None) -> None:
        """Loads the images and cuts the splits; Lightning calls it, and calling again is safe."""
        if self._splits:
            return
        train, test = self.load()
        self._check(train)
        held_out, kept = self._hold_out(train.target)
        if self.limit_train is not None:
            kept = _balanced(
                train.target, kept, self.limit_train, f"limit_train={self.limit_train}"
            )
        self.num_classes = int(train.target.max()) + 1
        self._images = {"train": train, "test": test}
        everything = torch.arange(len(test.target))
        self._splits = {
            "train": ("train", kept),
            "val": ("train", held_out) if len(held_out) else ("test", everything),
            "test": ("test", everything),
        }

    def _check(self, train: Images) -> None:
        """A subclass's own checks of its settings against the images."""

    def _hold_out(self, target: Tensor) -> tuple[Tensor, Tensor]:
        everything = torch.arange(len(target))
        share = self.val_split
        is_share = 0 < share < 1
        if not is_share and not float(share).is_integer():
            raise UserError(
                f"val_split={share} must be a whole number of images or a share below 1."
            )
        number = round(share * len(target)) if is_share else int(share)
        if not number:
            return everything[:0], everything
        held_out = _balanced(target, everything, number, f"val_split={share}")
        kept = torch.ones(len(target), dtype=torch.bool)
        kept[held_out] = False
        if len(target[kept].unique()) < len(target.unique()):
            raise UserError(
                f"val_split={share} leaves too few of the {len(target)} training images to train "
                "on every class; hold back fewer."
            )
        return held_out, everything[kept]

    def fingerprint(self) -> str:
        """A hash of all images and targets: the same for the same data, wherever it lies."""
        digest = hashlib.sha256()
        for images in self._images.values():
            for part in images:
                digest.update(str((part.dtype, tuple(part.shape))).encode())
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    # Loaders: indices alone.

    def train_dataloader(self) -> EpochLoader:
        """The training split, or a share of it, in a new order each epoch."""
        share = 1.0 if self.share is None else self.share()
        return self._loader("train", self.train_subset(share), training=True)

    def val_dataloader(self) -> EpochLoader:
        """The validation split: held-back training images if ``val_split``, else the test split."""
        return self._loader("val", self._splits["val"][1])

    def test_dataloader(self) -> EpochLoader:
        """The test split."""
        return self._loader("test", self._splits["test"][1])

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

        Raises:
            UserError: there is no such split.
        """
        if split not in self._splits:
            raise UserError(f"split={split!r} is not one of 'train', 'val' and 'test'.")
        index = self._splits[split][1]
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(_FIXED))
        place = (0, 1) if shared else self._place()
        return self._loader(split, index[order[:samples]], place=place)

    def train_subset(self, share: float) -> Tensor:
        """A fixed, class-balanced share of the training images, the same in every run.

        A smaller share is a part of a larger one.

        Args:
            share: of them, in (0, 1].

        Returns:
            Their places in the data set, in order.

        Raises:
            UserError: that is less than one image of each class.
        """
        index = self._splits["train"][1]
        if share == 1:
            return index
        number = round(share * len(index))
        return _balanced(self._images["train"].target, index, number, f"share={share}")

    def _loader(
        self,
        split: str,
        index: Tensor,
        training: bool = False,
        place: tuple[int, int] | None = None,
    ) -> EpochLoader:
        rank, world_size = place or self._place()
        sampler = EpochSampler(index, self.batch_size, training, global_seed(), rank, world_size)
        return EpochLoader(split, sampler)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    # From indices to a batch.

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The uint8 images of the batch, on the device."""
        name = self._splits[batch.split][0]
        if self._is_resident(device):
            images, index = self._on_device(name, device), batch.index.to(device)
            chosen = Images(images.pixels[index], images.target[index])
        else:
            images, index = self._images[name], batch.index
            chosen = Images(
                images.pixels[index].to(device, non_blocking=True),
                images.target[index].to(device, non_blocking=True),
            )
        return batch._replace(index=batch.index.to(device)), chosen

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Augments, normalises, applies deficits and crops: the whole batch at once."""
        draw, images = batch
        training = draw.epoch >= 0
        words = (global_seed(), draw.epoch)
        views = self._normalised(images.pixels, draw, training, words)
        whose = torch.full_like(images.target, -1)
        result = Batch(views, images.target, whose, draw.index)
        # Measurements take the same samples, but outside the loop of validation.
        validating = len(self.deficits.in_validation) > 0 and not training
        if training or (validating and self.trainer is not None and self.trainer.validating):
            rank = self._place()[0]
            draws = generator(views.device, _DEFICIT, *words, draw.batch, rank)
            result = self.deficits(result, draws, validating)
        result = result._replace(views=self.crop(result.views))
        if training:
            result = self._masked(result, words)
        # Lightning converts to half or double precision what a loader yields: here, indices.
        return self.trainer.precision_plugin.convert_input(result) if self.trainer else result

    def _normalised(
        self, pixels: Tensor, draw: Indices, training: bool, words: tuple[int, int]
    ) -> Tensor:
        mean, std = (
            torch.tensor(values, device=pixels.device).view(-1, 1, 1) * 255
            for values in (self.mean, self.std)
        )
        # Normalised first, so that padding with zeros is padding with the mean colour.
        normalised = (pixels - mean) / std
        if not training or self.augment == "none":
            return normalised[:, None].expand(-1, self.num_views, -1, -1, -1)
        copies = self.num_views if self.augment == "per_view" else 1
        draws = uniform(draw.index, 3 * copies, _AUGMENT, *words).view(-1, copies, 3)
        views = [
            shift_and_flip(normalised, draws[:, view], self.padding, self.flip)
            for view in range(copies)
        ]
        return torch.stack(views, dim=1).expand(-1, self.num_views, -1, -1, -1)

    def crop(self, views: Tensor) -> Tensor:
        """What each view sees of its image, [B, V, C, H, W]: all of it."""
        return views

    def _masked(self, batch: Batch, words: tuple[int, int]) -> Batch:
        """A subclass's last word on a training batch."""
        return batch

    def _is_resident(self, device: torch.device) -> bool:
        if device.type == "cpu":
            return True
        if self.device_resident is None:
            needed = sum(images.pixels.nbytes for images in self._images.values())
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            self.device_resident = needed < free / 2
        return self.device_resident

    def _on_device(self, name: str, device: torch.device) -> Images:
        if (name, device) not in self._resident:
            pixels, target = self._images[name]
            self._resident[name, device] = Images(pixels.to(device), target.to(device))
        return self._resident[name, device]


def shift_and_flip(images: Tensor, draws: Tensor, padding: int, flip: bool) -> Tensor:
    """A random crop of the zero-padded image and a random horizontal flip, for a whole batch.

    Args:
        images: [B, C, H, W]; zero is the colour of the padding.
        draws: uniform numbers in [0, 1), [B, 3]: row, column and flip of each sample.
        padding: pixels on each side; shifts are whole numbers from -padding to padding.
        flip: whether half of the samples are mirrored.

    Returns:
        [B, C, H, W], laid out channels last.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift_and_flip(image, torch.tensor([[0.5, 0.9, 0.0]]), padding=1, flip=False)[0, 0]
        tensor([[1., 2., 0.],
                [4., 5., 0.],
                [7., 8., 0.]])
    """
    height, width = images.shape[-2:]
    device = images.device
    padded = torch.nn.functional.pad(images, [padding] * 4)
    offset = (draws[:, :2] * (2 * padding + 1)).long()
    rows = offset[:, :1] + torch.arange(height, device=device)
    columns = offset[:, 1:] + torch.arange(width, device=device)
    if flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    sample = torch.arange(len(images), device=device)[:, None, None]
    gathered = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return gathered.permute(0, 3, 1, 2)


def _balanced(target: Tensor, candidates: Tensor, number: int, setting: str) -> Tensor:
    """A fixed choice of ``number`` of the candidates, equally many of each class, in order."""
    classes = target[candidates].unique()
    if not len(classes) <= number <= len(candidates):
        raise UserError(
            f"{setting} asks for {number} images; choose between {len(classes)} (one of each "
            f"class) and {len(candidates)} (all training images that there are)."
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(_FIXED))
    candidates = candidates[order]
    of_class = target[candidates]
    # Sorting by the rank within the class takes one of each class, then a second one of each, ….
    rank = torch.empty_like(candidates)
    for label in classes:
        members = (of_class == label).nonzero().flatten()
        rank[members] = torch.arange(len(members))
    chosen = candidates[torch.argsort(rank * (int(classes.max()) + 1) + of_class, stable=True)]
    return chosen[:number].sort().values
