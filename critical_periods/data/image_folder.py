"""Pictures of any size in a folder for each class, or FER2013, as a data set of square images."""

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import FER2013
from torchvision.transforms.functional import center_crop, five_crop

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, near, reason
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import Images, normalise
from critical_periods.data.class_folders import ClassFolders, find_class_files, like, tell
from critical_periods.data.epochs import Indices
from critical_periods.data.images import ImageDataModule
from critical_periods.data.pictures import picture_suffixes, read_picture, stamp

# By FER2013's numbers.
_FER = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
_PLACES = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1], [0, 0]])
_GREY = torch.tensor([0.299, 0.587, 0.114])


class ImageFolderDataModule(ImageDataModule):
    """Pictures as ``train/<class>/*`` and ``test/<class>/*``, of any size, in one view.

    ``val/<class>/*`` validates where it is there, and stands for a missing ``test``. Or ``root``
    holds FER2013 as torchvision reads it (``fer2013/fer2013.csv`` or ``icml_face_data.csv``), whose
    classes are anger, disgust, fear, happiness, neutral, sadness and surprise.

    Which files are pictures, and how they are read, says :class:`.CIFAR10DataModule`; here those
    that cannot be read are left out, and a line says how many. The middle square of each is scaled
    to ``size`` and kept in memory, size² · 3 bytes a picture. How many there are of each class is
    logged, and in ``balance``.

    In training each picture is turned at random, cut to one of its four corners or its middle, and
    its brightness, contrast and saturation change, all by (seed, epoch, index); what lies outside
    has the mean colour (Huang et al. 2023). Monitors measure the middle.

    Args:
        root: the folder.
        classes: which classes there are, and in which order; by default all, by their names. With
            ``{folder: name}`` they are called otherwise than their folders.
        size: height and width to which pictures are scaled.
        crop_size: height and width of what the network sees of them.
        evaluation: ``centre``, or ``five``: the mean of the probabilities for four corners and the
            middle. A task of another package gets these as five samples.
        rotation: by how many degrees a picture is turned at most, in either direction.
        tone: by what share brightness, contrast and saturation change at most.
        settings: those of :class:`~critical_periods.data.images.ImageDataModule`.

    Raises:
        UserError: a setting is out of its range; by ``setup``, a part or a class is missing or
            without pictures.

    Attributes:
        balance: how many pictures there are, by part and class.

    Example:
        >>> ImageFolderDataModule(root="nowhere").setup()
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: root='nowhere' has no folder train; it must hold \
train/<class>/* and test/<class>/* or val/<class>/*, or FER2013's fer2013/.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str | Path = "data",
        classes: Sequence[str] | Mapping[str, str] | None = None,
        size: int = 256,
        crop_size: int = 224,
        evaluation: Literal["centre", "five"] = "centre",
        rotation: float = 30.0,
        tone: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if not 1 <= crop_size <= size:
            raise UserError(f"crop_size={crop_size} must lie between 1 and size={size}.")
        if not 0 <= rotation <= 180:
            raise UserError(f"rotation={rotation} must lie between 0 and 180 degrees.")
        if not 0 <= tone < 1:
            raise UserError(f"tone={tone} must lie between 0 and 1.")
        if evaluation not in ("centre", "five"):
            hint = near(evaluation, ["centre", "five"])
            raise UserError(f"evaluation={evaluation!r} is unknown; {hint}")
        self.root = Path(root).expanduser()
        named = classes if isinstance(classes, Mapping) else {one: one for one in classes or ()}
        self.classes = {str(folder): str(name) for folder, name in named.items()}
        if classes is not None and len(set(self.classes.values())) < max(len(classes), 2):
            raise UserError(f"classes={classes} must name at least two classes, each once.")
        self.size, self.crop_size, self.rotation, self.tone = size, crop_size, rotation, tone
        self.crops = 5 if evaluation == "five" else 1
        self.balance: dict[str, dict[str, int]] = {}

    def load(self) -> tuple[Images, Images]:
        """The pictures of ``train``, and of ``test`` or, where that is missing, of ``val``."""
        parts = self._read()
        self.class_names = [*self.classes.values()]
        for part, images in parts.items():
            counts = images.target.bincount(minlength=len(self.classes)).tolist()
            self.balance[part] = named = dict(zip(self.class_names, counts, strict=True))
            total = sum(counts)
            shown = (f"{name}: {count} ({count / total:.1%})" for name, count in named.items())
            rank_zero_info(f"{self.root / part}: {total} pictures, {', '.join(shown)}.")
        self._val = parts["val"] if {"val", "test"} <= parts.keys() else None
        return parts["train"], parts["test"] if "test" in parts else parts["val"]

    def setup(self, stage: str | None = None) -> None:
        """Reads the pictures; ``val`` validates where it is there and nothing is held back."""
        super().setup(stage)
        if self._val is not None and "val" not in self._images and not self.val_split:
            self._images["val"] = self._val
            self.splits["val"] = ("val", torch.arange(len(self._val.target)))

    def _read(self) -> dict[str, Images]:
        parts = [part for part in ("train", "val", "test") if (self.root / part).is_dir()]
        if (self.root / "fer2013").is_dir() and not parts:
            self._choose(tuple(sorted(_FER)), self.root / "fer2013")
            return {part: self._read_fer(part) for part in ("train", "test")}
        for wanted in (["train"], ["val", "test"]):
            if not set(wanted) & set(parts):
                raise UserError(
                    f"root={str(self.root)!r} has no folder {' or '.join(wanted)}; it must hold "
                    "train/<class>/* and test/<class>/* or val/<class>/*, or FER2013's fer2013/."
                )
        where = {part: (self.root / part).resolve() for part in parts}
        found = {p: find_class_files(f, picture_suffixes(), "pictures") for p, f in where.items()}
        self._choose(found["train"].classes, where["train"])
        for one in found.values():
            for name in self.classes:
                if name not in one.classes:
                    raise UserError(
                        f"the class folder {name!r} is in {where['train']} but not in "
                        f"{one.folder}; every part must hold every class{like(name, one.classes)}"
                    )
                if name in one.empty:
                    raise UserError(
                        f"{one.folder / name} holds no pictures; put some there, or leave "
                        f"{name!r} out by data.init_args.classes{one.aside}."
                    )
        chosen = tuple(self.classes)
        return {p: _decode(one, chosen, self.size, stamp(one)) for p, one in found.items()}

    def _choose(self, known: Sequence[str], folder: Path) -> None:
        """Takes all classes that are known, or checks those that were chosen."""
        if not known:
            raise UserError(f"{folder} holds no folder of pictures; put one there for each class.")
        self.classes = self.classes or {name: name for name in known}
        for name in self.classes:
            if name not in known:
                raise UserError(
                    f"classes names {name!r}, which {folder} lacks; {near(name, known)}"
                )

    def _read_fer(self, part: str) -> Images:
        try:
            data = FER2013(self.root, split=part)
        except (RuntimeError, OSError, KeyError, ValueError, csv.Error) as error:
            raise UserError(
                f"FER2013 cannot be read from root={str(self.root)!r} ({reason(error)})."
            ) from error
        chosen, pixels, target = list(self.classes), [], []
        for picture, number in data:
            if number is None:
                raise UserError(
                    f"{self.root / 'fer2013'} has no labels to test on; put fer2013.csv or "
                    "icml_face_data.csv there, which have them."
                )
            if (name := _FER[number]) in chosen:
                pixels.append(_square(np.asarray(picture.convert("RGB")), self.size))
                target.append(chosen.index(name))
        return Images(torch.stack(pixels), torch.tensor(target))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """As every batch; of five crops each where that is evaluated."""
        draw, images = batch
        if self.crops > 1 and not draw.in_training and _is_evaluating(self.trainer):
            crops = torch.stack(five_crop(images.pixels, [self.crop_size] * 2), dim=1).flatten(0, 1)
            images = Images(crops, images.target.repeat_interleave(self.crops))
            draw = draw._replace(index=draw.index.repeat_interleave(self.crops))
        return super().on_after_batch_transfer((draw, images), dataloader_idx)

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The middle of each picture, or in training another part, turned and of other tone."""
        if not draw.in_training or self.augment == "none":
            return normalise(center_crop(pixels, [self.crop_size] * 2), self.mean, self.std)[
                :, None
            ]
        draws = uniform(draw.index, 5, Stream.ROTATION, *draw.key)
        turn, place, tones = draws.split([1, 1, 3], dim=1)
        toned = change_tone(pixels / 255, 1 + self.tone * (2 * tones - 1))
        images = normalise(255 * toned, self.mean, self.std)
        angle = (2 * turn[:, 0] - 1) * self.rotation * torch.pi / 180
        corner = _PLACES.to(place.device)[(5 * place[:, 0]).long()]
        return turn_and_crop(images, angle, corner, self.crop_size)[:, None]


def change_tone(images: Tensor, factors: Tensor) -> Tensor:
    """Changes brightness, contrast and saturation of whole batches.

    Args:
        images: levels of 0 to 1, [B, 3, H, W].
        factors: of brightness; of the distance from the mean grey; of that from each pixel's grey,
            [B, 3]. At 1 nothing changes.

    Returns:
        Levels of 0 to 1, [B, 3, H, W].

    Example:
        >>> change_tone(torch.full((1, 3, 1, 1), 0.25), torch.tensor([[2.0, 1.0, 1.0]])).flatten()
        tensor([0.5000, 0.5000, 0.5000])
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    grey = (images * _GREY.to(images.device)[:, None, None]).sum(1, keepdim=True)
    middle = grey.mean((2, 3), keepdim=True)
    coloured = grey + saturation * (images - grey)
    return (middle + contrast * (coloured - middle)).clamp(0, 1)


def turn_and_crop(images: Tensor, angle: Tensor, corner: Tensor, size: int) -> Tensor:
    """Turns pictures about their middles and cuts squares from them, in one bilinear sampling.

    Args:
        images: [B, C, S, S]; zero is what lies outside.
        angle: in radians, [B].
        corner: which square: -1, 0 or 1 for left, middle and right, and for up and down, [B, 2].
        size: of the squares.

    Returns:
        [B, C, size, size].

    Example:
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> turn_and_crop(image, torch.zeros(1), torch.tensor([[1, -1]]), 2)[0, 0]
        tensor([[2., 3.],
                [6., 7.]])
    """
    share = size / images.shape[-1]
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], dim=1)
    shift = turn @ (corner * (1 - share)).to(turn.dtype)[:, :, None]
    shape = [len(images), images.shape[1], size, size]
    grid = F.affine_grid(torch.cat([turn * share, shift], dim=2), shape, align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


def _is_evaluating(trainer: Any) -> bool:
    """Whether batches are those of an evaluation's own loop, and not of a measurement."""
    loops = ("validating", "sanity_checking", "testing", "predicting")
    return trainer is not None and any(getattr(trainer, loop) for loop in loops)


@lru_cache(maxsize=6)
def _decode(found: ClassFolders, chosen: tuple[str, ...], size: int, stamp: int) -> Images:
    """The pictures of the chosen classes that can be read; a stamp changes whenever a file does."""
    pairs = zip(found.paths, found.labels, strict=True)
    files = [(str(found.folder / path), label) for path, label in pairs if label in chosen]
    pixels = torch.empty((len(files), 3, size, size), dtype=torch.uint8)

    def read(place: int) -> bool:
        try:
            pixels[place] = _square(read_picture(files[place][0]), size)
        except UserError:
            return False
        return True

    # Pillow releases the interpreter's lock while it decodes and scales.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        is_read = list(pool.map(read, range(len(files))))
    unreadable = [path for (path, _), good in zip(files, is_read, strict=True) if not good]
    if unreadable:
        tell(
            f"{len(unreadable)} of {len(files)} pictures in {found.folder} cannot be read and are "
            f"left out, such as {unreadable[0]}."
        )
        # Only now, as a copy may need as much memory again.
        pixels = pixels[torch.tensor(is_read)]
    labels = [label for (_, label), good in zip(files, is_read, strict=True) if good]
    for name in chosen:
        if name not in labels:
            raise UserError(
                f"none of the pictures in {found.folder / name} can be read; replace them, or "
                f"leave {name!r} out by data.init_args.classes."
            )
    return Images(pixels, torch.tensor([chosen.index(label) for label in labels]))


def _square(picture: np.ndarray, size: int) -> Tensor:
    """The middle square of a picture [H, W, 3], scaled, [3, size, size]."""
    scaled = ImageOps.fit(Image.fromarray(picture), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)
