"""Faces that are drawn from parameters: seven expressions in two databases."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import Images
from critical_periods.data.images import ImageDataModule

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""The classes, in order."""

Database = Literal["posed", "wild"]
Region = Literal["mouth", "brows", "eyes", "lines"]

# How much the corners of the mouth are up, how far it is open and how wide; how high the brows are,
# and their inner ends; how open the eyes; lines of the forehead and beside the nose.
_LOOKS = torch.tensor(
    [
        [-0.4, 0.1, 1.2, -0.6, -1.0, 0.7, 0.0, 0.6],  # anger
        [-0.8, 0.4, 0.8, -0.9, -0.2, 0.5, 0.0, 1.0],  # disgust
        [-0.3, 0.7, 1.1, 0.6, 0.7, 1.3, 0.8, 0.0],  # fear
        [1.0, 0.3, 1.2, 0.5, -0.4, 0.7, 0.0, 0.4],  # happiness
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0],  # neutral
        [-1.0, 0.0, 0.8, -0.1, 1.0, 0.6, 0.3, 0.0],  # sadness
        [0.2, 1.0, 0.6, 1.2, 0.2, 1.5, 1.0, 0.0],  # surprise
    ]
)
_PARTS: dict[str, slice] = {
    "mouth": slice(0, 3), "brows": slice(3, 5), "eyes": slice(5, 6), "lines": slice(6, 8),
}  # fmt: skip
_LOOK, _POSE, _STYLE = 8, 5, 4


class _Kind(NamedTuple):
    """What sets a database apart."""

    samples: int
    turn: float  # degrees
    shift: float  # of half of the picture's width
    yaw: float
    spread: float  # of the same expression
    noise: float  # of 255
    contrast: tuple[float, float]  # of what is drawn
    balance: tuple[float, ...]  # of the training classes
    label_noise: float  # of training


_KINDS: dict[str, _Kind] = {
    "posed": _Kind(
        1400, 5, 0.05, 0.2, 0.3, 6, (0.7, 1.0), (0.6, 0.6, 0.4, 2.0, 1.4, 1.2, 0.8), 0.0
    ),
    "wild": _Kind(
        4200, 12, 0.1, 0.6, 0.4, 14, (0.5, 1.0), (0.8, 0.2, 0.3, 2.8, 1.8, 0.7, 0.4), 0.1
    ),
}


class FacesDataModule(ImageDataModule):
    """Grey faces drawn from parameters, in one view: mouth, brows, eyes and lines tell seven moods.

    Expressions are those of :data:`EXPRESSIONS`. Two databases differ as those of photographs do:

    - ``posed``: 1,400 training images, frontal, of even light, with their true labels;
    - ``wild``: 4,200, turned by up to 12 degrees, looking aside, faint or dark, noisier, less
      balanced, and a tenth of the training labels is drawn anew from all classes.

    The test split has 700 images, 100 of each class, with their true labels, so that chance is 1/7.
    A face depends on (seed, database, split, index) alone. Augmentation shifts by up to a twelfth
    of the width and flips.

    Args:
        database: ``posed`` or ``wild``.
        size: height and width in pixels.
        samples: training images; by default those of the database.
        informative: the regions that tell the expression, of ``mouth``, ``brows``, ``eyes`` and
            ``lines``; all by default. What the others show is that of another expression, drawn
            independently, so that they look as ever and tell nothing.
        seed: of the faces themselves; a run's own seed does not change them.
        settings: those of :class:`~critical_periods.data.images.ImageDataModule`.

    Raises:
        UserError: a setting is out of its range, or a name unknown.

    Example:
        >>> data = FacesDataModule(samples=70, informative=["mouth"])
        >>> data.setup()
        >>> data.class_names[3], data._images["train"].pixels.shape
        ('happiness', torch.Size([70, 1, 48, 48]))
    """

    flip = True
    num_classes = len(EXPRESSIONS)
    class_names = EXPRESSIONS
    mean, std = (0.5,), (0.25,)

    def __init__(
        self,
        database: Database = "posed",
        size: int = 48,
        samples: int | None = None,
        informative: Sequence[Region] = ("mouth", "brows", "eyes", "lines"),
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if database not in _KINDS:
            raise UserError(f"database={database!r} is unknown; {near(database, _KINDS)}")
        for name in informative:
            if name not in _PARTS:
                raise UserError(f"informative names {name!r}; {near(name, _PARTS)}")
        if size < 24:
            raise UserError(f"size={size} of faces must be at least 24 pixels.")
        if samples is not None and samples < 2 * len(EXPRESSIONS):
            raise UserError(f"samples={samples} of faces must be at least {2 * len(EXPRESSIONS)}.")
        self.database, self.size, self.informative = database, size, tuple(informative)
        self.samples = _KINDS[database].samples if samples is None else samples
        self.padding, self.seed = size // 12, seed

    def load(self) -> tuple[Images, Images]:
        """The faces of both splits."""
        where = (self.database, self.size, self.informative, self.seed)
        return _faces(*where, "train", self.samples), _faces(*where, "test", 100 * len(EXPRESSIONS))

    def regions(self, split: str, index: Tensor) -> dict[str, Tensor]:
        """Where the regions of clean samples are, by name, bool [B, size, size].

        Args:
            split: ``train``, ``val`` or ``test``.
            index: of the samples, as :class:`~critical_periods.core.batch.Batch` has it, [B].
        """
        part, _ = self._split(split)
        across, down = _grid(_poses(self.database, index.cpu(), self.seed, part), self.size)
        side = across.abs()
        found = {
            "mouth": (across / 0.44) ** 2 + ((down - 0.5) / 0.3) ** 2 < 1,
            "brows": (side > 0.1) & (side < 0.54) & (down > -0.64) & (down < -0.22),
            "eyes": (side > 0.12) & (side < 0.5) & (down > -0.22) & (down < 0.04),
            "lines": (side < 0.45) & (down > -0.92) & (down < -0.68)
            | (side > 0.12) & (side < 0.4) & (down > 0.04) & (down < 0.24),
        }
        return {name: mask.to(index.device) for name, mask in found.items()}


@lru_cache(maxsize=4)
def _faces(
    database: str, size: int, informative: tuple[str, ...], seed: int, part: str, count: int
) -> Images:
    key = _key(database, seed, part)
    kind, index = _KINDS[database], torch.arange(count)
    # In their order, so that every class has its share.
    ends = torch.tensor(kind.balance if part == "train" else (1.0,) * 7).cumsum(0)
    label = torch.searchsorted(ends, (index + 0.5) / count * ends[-1]).clamp(max=6)
    draws = uniform(index, _LOOK + _STYLE + 3 + len(_PARTS), Stream.FACE, *key)
    jitter, style, noisy, others = draws.split([_LOOK, _STYLE, 3, len(_PARTS)], dim=1)
    look = _LOOKS[label].clone()
    for place, (name, part_of) in enumerate(_PARTS.items()):
        if name not in informative:
            look[:, part_of] = _LOOKS[(others[:, place] * 7).long()][:, part_of]
    look += kind.spread * (jitter - 0.5)
    low, high = kind.contrast
    style[:, 0] = low + (high - low) * style[:, 0]
    pixels = torch.cat(
        [
            draw(one_look, pose, one_style, size)
            for one_look, pose, one_style in zip(
                look.split(256), _poses(database, index, seed, part).split(256), style.split(256),
                strict=True,
            )
        ]
    )  # fmt: skip
    grain = uniform(index, size**2, Stream.FACE_NOISE, *key)
    pixels += kind.noise * (12**0.5) * (grain.view_as(pixels) - 0.5)
    if part == "train":
        wrong = noisy[:, 0] < kind.label_noise
        label = torch.where(wrong, (noisy[:, 1] * 7).long(), label)
    return Images(pixels.round_().clamp_(0, 255).to(torch.uint8)[:, None], label)


def _key(database: str, seed: int, part: str) -> tuple[int, int, int]:
    return seed, list(_KINDS).index(database), int(part == "test")


def _poses(database: str, index: Tensor, seed: int, part: str) -> Tensor:
    """Angle, shift to the right and down, size and yaw, [B, 5]."""
    kind = _KINDS[database]
    draws = 2 * uniform(index, _POSE, Stream.FACE_POSE, *_key(database, seed, part)) - 1
    reach = [kind.turn * torch.pi / 180, kind.shift, kind.shift, 0.05, kind.yaw]
    return draws * torch.tensor(reach) + torch.tensor([0, 0, 0, 0.85, 0])


def _grid(pose: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Places in a face that ends at 1: to the right of its middle and below, [B, size, size]."""
    angle, right, below, scale, yaw = pose[:, :, None, None].unbind(1)
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = (line[None, None, :] - right) / scale, (line[None, :, None] - below) / scale
    cosine, sine = angle.cos(), angle.sin()
    return (cosine * x + sine * y - 0.2 * yaw) / (1 - 0.15 * yaw.abs()), cosine * y - sine * x


def draw(look: Tensor, pose: Tensor, style: Tensor, size: int) -> Tensor:
    """Draws faces, each in a few strokes whose edges are a pixel wide.

    Args:
        look: the eight numbers that tell an expression, [B, 8].
        pose: angle in radians, shift to the right and down, size and yaw, [B, 5].
        style: contrast of the strokes, and how bright skin and ground are and how bold the strokes,
            each in [0, 1], [B, 4].
        size: of the picture.

    Returns:
        Levels of grey, 0 to 255, [B, size, size].
    """
    across, down = _grid(pose, size)
    curve, opening, width, height, tilt, eye, forehead, nose = look[:, :, None, None].unbind(1)
    contrast, skin, ground, bold = style[:, :, None, None].unbind(1)
    side, blur = across.abs(), 2.4 / size

    def within(distance: Tensor) -> Tensor:
        """1 within an outline, from which the distance is given, 0 outside of it."""
        return (0.5 - distance / blur).clamp_(0, 1)

    levels = 60 + 130 * ground
    head = within((across / 0.78) ** 2 + down**2 - 1)
    levels = levels + head * (130 + 90 * skin - levels)
    thick = 0.03 + 0.02 * bold
    open_ = (0.08 * eye).clamp(min=0.02)
    eyes = within(((side - 0.3) / 0.15) ** 2 + ((down + 0.09) / open_) ** 2 - 1)
    levels = levels + eyes * (240 - levels)
    pupil = eyes * within((side - 0.3) ** 2 * 60 + (down + 0.09) ** 2 * 60 - 0.3)
    along = (side - 0.16) / 0.3
    brow = -0.42 - 0.09 * height - 0.1 * tilt * (1 - 2 * along)
    brows = within(torch.maximum((down - brow).abs() - thick, (along - 0.5).abs() / 3 - 0.16))
    reach = across / (0.28 * width.clamp(min=0.3))
    middle = 0.5 + 0.12 * curve * (1 - 2 * reach**2)
    lips = thick * 0.8 + 0.13 * opening.clamp(min=0) * (1 - reach**2).clamp(min=0)
    mouth = within(torch.maximum((down - middle).abs() - lips, reach.abs() / 3 - 0.33))
    bridge = within(torch.maximum(side - 0.02, (down - 0.1).abs() - 0.12))
    wrinkles = within(torch.maximum(((down + 0.8).abs() - 0.06).abs() - 0.015, side - 0.38))
    folds = within(
        torch.maximum((side - 0.26 - (down - 0.14)).abs() - 0.02, (down - 0.14).abs() - 0.1)
    )
    ink = torch.maximum(torch.maximum(pupil, brows), mouth)
    faint = torch.maximum(wrinkles * forehead.clamp(0, 1), folds * nose.clamp(0, 1))
    ink = torch.maximum(ink, 0.8 * torch.maximum(faint, 0.4 * bridge))
    return levels * (1 - contrast * ink)
