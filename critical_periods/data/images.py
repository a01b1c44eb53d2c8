"""The DataModule of images that are kept in memory."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import BatchStage, Images, buffers, fixed_order, normalise
from critical_periods.data.epochs import EpochLoader, EpochSampler, Indices

Augment = Literal["shared", "per_view", "none"]

# The part that samples of another data set are taken from.
_SOURCE = "source"


class Source(NamedTuple):
    """Another data set that training takes samples from.

    Attributes:
        data: which is set up.
        classes: the number here of each of its classes, [K].
        share: of the samples, in (0, 1]; at 1 an epoch is one of the other data set.
    """

    data: "ImageDataModule"
    classes: Tensor
    share: float = 1.0


class ImageDataModule(BatchStage):
    """Images as uint8 tensors, from which batches are made on the device.

    Augmentation is a random crop of the padded image and a horizontal flip. A subclass gives the
    images (:meth:`load`) and their constants.

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
        share: a function that returns the share of the training images that the next epoch sees,
            set by :class:`~critical_periods.callbacks.SubsetWindow`; ``None`` for all.
        shares: those that epochs of this training see.
        source: a function that returns the other data set that training takes samples from now,
            set by :class:`~critical_periods.callbacks.SourceWindow`; ``None`` for none.
        sources: those that epochs of this training see.
        num_views: V.
        num_classes: K, that of the data from :meth:`setup` on.
        class_names: of the K classes, from :meth:`setup` on; by default their numbers.
        mean: of the pixels of each channel, in 0 to 1, C.
        std: the same for their standard deviations.
        padding: by how many pixels augmentation shifts at most.
        flip: whether it flips.
    """

    num_views: int = 1
    num_classes: int = 10
    class_names: Sequence[str] = ()
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
        self.batch_size, self.limit_train, self.val_split = batch_size, limit_train, val_split
        self.augment, self.device_resident = augment, device_resident
        self.share: Callable[[], float] | None = None
        self.shares: set[float] = set()
        self.source: Callable[[], Source | None] | None = None
        self.sources: list[ImageDataModule] = []
        self._images: dict[str, Images] = {}
        self._resident: dict[tuple[str, torch.device], Images] = {}

    @abstractmethod
    def load(self) -> tuple[Images, Images]:
        """The training and the test images."""

    def setup(self, stage: str | None = None) -> None:
        """Loads the images and cuts the splits; Lightning calls it, and calling again is safe."""
        if self.splits:
            return
        train, test = self.load()
        self.check(train)
        held_out, kept = self._hold_out(train.target)
        if (limit := self.limit_train) is not None:
            kept = _balanced(train.target, kept, limit, f"limit_train={limit}")
        self.class_names = self.class_names or [str(n) for n in range(int(train.target.max()) + 1)]
        self.num_classes = len(self.class_names)
        self._images = {"train": train, "test": test}
        everything = torch.arange(len(test.target))
        self.splits = {
            "train": ("train", kept),
            "val": ("train", held_out) if len(held_out) else ("test", everything),
            "test": ("test", everything),
        }

    def check(self, train: Images) -> None:
        """Raises a UserError where a subclass's own settings do not fit the training images."""

    def _hold_out(self, target: Tensor) -> tuple[Tensor, Tensor]:
        everything, setting = torch.arange(len(target)), f"val_split={self.val_split}"
        is_share = 0 < self.val_split < 1
        if not is_share and not float(self.val_split).is_integer():
            raise UserError(f"{setting} must be a whole number of images or a share below 1.")
        number = round(self.val_split * len(target)) if is_share else int(self.val_split)
        if not number:
            return everything[:0], everything
        held_out = _balanced(target, everything, number, setting)
        kept = torch.ones(len(target), dtype=torch.bool)
        kept[held_out] = False
        if len(target[kept].unique()) < len(target.unique()):
            raise UserError(
                f"{setting} leaves too few of the {len(target)} training images to train on every "
                "class; hold back fewer."
            )
        return held_out, everything[kept]

    def contents(self) -> Iterator[Any]:
        """All images and targets."""
        for images in self._images.values():
            yield from buffers(images)

    def train_dataloader(self) -> EpochLoader:
        """The training split, or a share of it or another data set, in a new order each epoch."""
        source = self.source() if self.source is not None else None
        if source is not None and source.share == 1:
            loader = source.data.train_dataloader()
            loader.part = _SOURCE
            return loader
        share = 1.0 if self.share is None else self.share()
        return self._loader("train", self.train_subset(share), training=True)

    def epochs(self, processes: int) -> list[EpochSampler]:
        """One sampler for each length that training epochs have: of all images, shares, sources."""
        indices = [self.train_subset(share) for share in (1.0, *sorted(self.shares))]
        own = [EpochSampler(one, self.batch_size, True, world_size=processes) for one in indices]
        return own + [one for source in self.sources for one in source.epochs(processes)]

    def train_subset(self, share: float) -> Tensor:
        """The places of a fixed, class-balanced share in (0, 1] of the training images, in order.

        It is the same in every run, and a smaller share is a part of a larger one.

        Raises:
            UserError: the share is less than one image of each class.
        """
        _, index = self.splits["train"]
        if share == 1:
            return index
        number = round(share * len(index))
        return _balanced(self._images["train"].target, index, number, f"share={share}")

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The uint8 images of the batch, on the device."""
        if batch.part == _SOURCE:
            source = self._source_now()
            own = batch._replace(part="train")
            draw, images = source.data.transfer_batch_to_device(own, device, dataloader_idx)
            target = source.classes.to(device)[images.target]
            return draw._replace(part=_SOURCE), images._replace(target=target)
        draw, stored = batch._replace(index=batch.index.to(device)), self._images[batch.part]
        if self._is_resident(device):
            where = (batch.part, device)
            if where not in self._resident:
                self._resident[where] = Images(*(each.to(device) for each in stored))
            return draw, Images(*(each[draw.index] for each in self._resident[where]))
        chosen = (each[batch.index].to(device, non_blocking=True) for each in stored)
        return draw, Images(*chosen)

    def _source_now(self) -> Source:
        source = None if self.source is None else self.source()
        assert source is not None
        return source

    def maker(self, draw: Indices) -> BatchStage:
        """Whose views samples have: of a source, those of its own DataModule."""
        return self._source_now().data if draw.part == _SOURCE else self

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """As every batch; where a source has a share, that many samples are of the source."""
        draw, _ = batch
        result = super().on_after_batch_transfer(batch, dataloader_idx)
        is_own = draw.in_training and draw.part != _SOURCE
        source = self.source() if is_own and self.source is not None else None
        if source is None:
            return result
        is_other, which = uniform(draw.index, 2, Stream.SOURCE, *draw.key).unbind(1)
        _, index = source.data.splits["train"]
        index = index.to(which.device)[(which * len(index)).long()]
        other = draw._replace(part=_SOURCE, index=index)
        moved = self.transfer_batch_to_device(other, index.device, dataloader_idx)
        pairs = zip(super().on_after_batch_transfer(moved, dataloader_idx), result, strict=True)
        mask = is_other < source.share
        return Batch(*(torch.where(_as(mask, own), theirs, own) for theirs, own in pairs))

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """Each image as V views, in training shifted and flipped, [B, V, C, H, W]."""
        # Normalised first, so that padding with zeros is padding with the mean colour.
        images = normalise(pixels, self.mean, self.std)
        if not draw.in_training or self.augment == "none":
            return images[:, None].expand(-1, self.num_views, -1, -1, -1)
        copies = self.num_views if self.augment == "per_view" else 1
        draws = uniform(draw.index, 3 * copies, Stream.AUGMENTATION, *draw.key).view(-1, copies, 3)
        views = [shift_and_flip(images, one, self.padding, self.flip) for one in draws.unbind(1)]
        return torch.stack(views, dim=1).expand(-1, self.num_views, -1, -1, -1)

    def _is_resident(self, device: torch.device) -> bool:
        if device.type == "cpu":
            return True
        if self.device_resident is None:
            needed = sum(images.pixels.nbytes for images in self._images.values())
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            self.device_resident = needed < free / 2
        return self.device_resident


class StoredImageDataModule(ImageDataModule):
    """Images that are read from a folder, where they may be downloaded to.

    Args:
        root: the folder.
        download: whether torchvision may download the data to ``root`` where it is not there.
        settings: those of :class:`ImageDataModule`.
    """

    def __init__(self, root: str | Path = "data", download: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser()
        self.download = download


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
    count, _, height, width = images.shape
    sample, row, column = (torch.arange(n, device=images.device) for n in (count, height, width))
    offset = (draws[:, :2] * (2 * padding + 1)).long()
    rows, columns = offset[:, :1] + row, offset[:, 1:] + column
    if flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    gathered = padded[sample[:, None, None], rows[:, :, None], columns[:, None, :]]
    return gathered.permute(0, 3, 1, 2)


def _as(mask: Tensor, values: Tensor) -> Tensor:
    """A mask [B] in the shape of values [B, ...]."""
    return mask.view(-1, *[1] * (values.ndim - 1))


def _balanced(target: Tensor, candidates: Tensor, number: int, setting: str) -> Tensor:
    """A fixed choice of ``number`` of the candidates, equally many of each class, in order."""
    classes = target[candidates].unique()
    if not len(classes) <= number <= len(candidates):
        raise UserError(
            f"{setting} asks for {number} images; choose between {len(classes)} (one of each "
            f"class) and {len(candidates)} (all training images that there are)."
        )
    candidates = candidates[fixed_order(len(candidates))]
    of_class = target[candidates]
    # Sorting by the rank within the class takes one of each class, then a second one of each, ….
    rank = torch.empty_like(candidates)
    for label in classes:
        members = (of_class == label).nonzero().flatten()
        rank[members] = torch.arange(len(members))
    chosen = candidates[torch.argsort(rank * (int(classes.max()) + 1) + of_class, stable=True)]
    return chosen[:number].sort().values
