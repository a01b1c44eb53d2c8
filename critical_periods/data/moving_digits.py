"""Two frames of a moving digit: each shows the digit, only both together its direction."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import Images
from critical_periods.data.digits import read_digits
from critical_periods.data.epochs import Indices
from critical_periods.data.stereo import Stereo

Label = Literal["motion", "digit", "both"]

# Random greys at so many by so many points of the ground; it is smooth in between.
_COARSE = 6
# Rows and columns of one step, clockwise; four directions are every other one of them.
_DIRECTIONS = {
    "right": (0, 1), "down_right": (1, 1), "down": (1, 0), "down_left": (1, -1),
    "left": (0, -1), "up_left": (-1, -1), "up": (-1, 0), "up_right": (-1, 1),
}  # fmt: skip
_SIDE = 16


class MovingDigitsDataModule(Stereo):
    """Two frames of a handwritten digit that moves over textured ground: video in the small.

    A digit of scikit-learn's (brightness as opacity) lies at a place P of a frame of S x S pixels
    that is closed to a torus: what leaves on one side comes in on the other. The second frame
    shows it d = ``step`` pixels further in one of 4 or 8 directions e (diagonally, d rows and d
    columns). Digit X, ground G (smooth noise of random brightness, the same in both frames), place
    and direction E are independent; P is uniform on the torus.

    **The motion is in neither frame alone.** The frames are F_0 = f(X, G, P) and
    F_1 = f(X, G, P + dE mod S) with one f. P does not depend on E, so nor does F_0. Given
    E = e, X and G, the place P + de is a translation on the torus of a uniform place, so it is
    uniform again. So F_1 has, whatever the direction, the law of F_0: I(F_0; E) = I(F_1; E) = 0
    exactly, and given the digit too. All of the information on the motion is in the pair: in the
    partial information decomposition of Kleinman, Achille & Soatto (CVPR 2023, section 2) it is
    synergy. Information on the digit is redundant: each frame has it.

    So one frame is at chance on ``label: motion``. On ``label: both`` a frame tells the digit's
    group, of five ({0, 1}, {2, 3}, …), and the pair tells the direction as well: class = group ·
    directions + direction. Under :class:`~critical_periods.deficits.Dissociation`, ``motion`` is
    noise; of ``both`` the group can still be learned from the frame that the label belongs to.

    Samples are drawn on the device as they are needed, those of training anew in each epoch, by
    (seed, epoch, index); those of validation, of the test and of measurements by their index
    alone. An epoch has each of 1,000 training digits once. The test split has each of 797 other
    digits once in each direction, so that chance is exactly 1 / directions on ``motion``.

    Args:
        label: ``motion`` (the direction), ``digit`` (10 classes) or ``both``.
        size: S, height and width of a frame in pixels, at least 16, the size of a digit.
        step: d, by how many pixels the digit has moved, from 1 to below half of ``size``.
        directions: 4 or 8.
        settings: ``mask_probability`` of :class:`.Stereo` and those of :class:`.ImageDataModule`
            but for ``augment``; subsets are balanced over the ten digits.

    Raises:
        UserError: a setting is unknown or out of its range.

    Attributes:
        class_names: of the K classes.

    Example:
        >>> data = MovingDigitsDataModule(batch_size=64)
        >>> data.setup()
        >>> data.num_classes, data.class_names[0], data.class_names[19]
        (20, '0_1_right', '8_9_up')
        >>> draw = next(iter(data.train_dataloader()))
        >>> digits = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
        >>> data.on_after_batch_transfer(digits, 0).views.shape
        torch.Size([64, 2, 1, 24, 24])
    """

    mean, std = (0.233,), (0.240,)

    def __init__(
        self,
        label: Label = "both",
        size: int = 24,
        step: int = 2,
        directions: Literal[4, 8] = 4,
        **settings: Any,
    ) -> None:
        # Both views see everything.
        super().__init__(width=size, augment="none", **settings)
        if label not in get_args(Label):
            raise UserError(
                f"label={label!r} of the moving digits is unknown; {near(label, get_args(Label))}"
            )
        if size < _SIDE:
            raise UserError(
                f"size={size} of the moving digits must be at least {_SIDE} pixels, which is the "
                "size of a digit."
            )
        if not 1 <= step < size / 2:
            raise UserError(
                f"step={step} of the moving digits must lie between 1 and {(size - 1) // 2} "
                f"pixels, below half of their size={size}, or left cannot be told from right."
            )
        if directions not in (4, 8):
            raise UserError(f"directions={directions} of the moving digits must be 4 or 8.")
        self.label, self.size, self.step, self.directions = label, size, step, directions
        motions = list(_DIRECTIONS)[:: 8 // directions]
        self.class_names = {
            "motion": motions,
            "digit": [str(digit) for digit in range(10)],
            "both": [f"{n}_{n + 1}_{motion}" for n in range(0, 10, 2) for motion in motions],
        }[label]
        self.num_classes = len(self.class_names)

    def load(self) -> tuple[Images, Images]:
        """Each digit in the upper left corner of an empty frame: uint8 [N, 1, size, size]."""
        border = [0, self.size - _SIDE] * 2
        train, test = (each._replace(pixels=F.pad(each.pixels, border)) for each in read_digits())
        # As many of each as there are directions: see _direction.
        return train, Images(*(part.repeat_interleave(self.directions, 0) for part in test))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> tuple[Indices, Images]:
        """The uint8 digits of the batch on the device, and the class of each scene."""
        draw, digits = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if self.label == "digit":
            return draw, digits
        group = digits.target // 2 if self.label == "both" else 0
        return draw, digits._replace(target=group * self.directions + self._direction(draw))

    def _direction(self, draw: Indices) -> Tensor:
        """Numbers of the directions [B]: drawn anew in training, each in turn in evaluation."""
        if not draw.in_training:
            return draw.index % self.directions
        draws = uniform(draw.index, 1, Stream.MOTION, *draw.key)[:, 0]
        return (draws * self.directions).long()

    def film(self, digits: Tensor, draw: Indices, distances: Tensor) -> Tensor:
        """Frames of the scenes of a batch.

        Args:
            digits: uint8 [B, 1, size, size], from :meth:`load`.
            draw: which samples of which epoch, ``index`` being on the device of ``digits``.
            distances: how many pixels the digit has moved in each frame, whole numbers [T]; the
                views of a sample are those at 0 and ``step``.

        Returns:
            Brightness in [0, 1], [B, T, 1, size, size].
        """
        draws = uniform(draw.index, 3 + _COARSE**2, Stream.SCENE, *draw.key)
        place = (draws[:, :2] * self.size).long()
        brightness = 0.1 + 0.25 * draws[:, 2, None, None, None]
        coarse = draws[:, 3:].view(-1, 1, _COARSE, _COARSE)
        ground = brightness * F.interpolate(coarse, self.size, mode="bicubic").clamp(0, 1)
        motions = torch.tensor(list(_DIRECTIONS.values()), device=digits.device)
        motion = motions[self._direction(draw) * (8 // self.directions)]
        places = place[:, None] + distances.to(digits.device)[:, None] * motion[:, None]
        return on_torus(digits / 255, ground, places)

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The two frames [B, 2, 1, size, size], drawn now."""
        frames = self.film(pixels, draw, torch.tensor([0, self.step]))
        return (frames - self.mean[0]) / self.std[0]


def on_torus(figures: Tensor, ground: Tensor, places: Tensor) -> Tensor:
    """Figures laid over their grounds, moved around the edges where they reach beyond one.

    With the figure A (its brightness is its opacity) moved by (p, q) over its ground G,

        frame[y, x] = a + (1 - a) G[y, x],  a = A[(y - p) mod H, (x - q) mod W].

    Args:
        figures: brightness in [0, 1], [B, C, H, W].
        ground: brightness in [0, 1], [B, C, H, W].
        places: by how many rows and columns the figure is moved in each frame, whole numbers
            [B, T, 2].

    Returns:
        Brightness in [0, 1], [B, T, C, H, W].

    Example:
        >>> figure = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])
        >>> places = torch.tensor([[[0, 1], [1, 3]]])
        >>> first, second = on_torus(figure, torch.zeros(1, 1, 2, 4), places)[0, :, 0]
        >>> first.tolist()
        [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        >>> second.tolist()
        [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    """
    height, width = figures.shape[-2:]
    rows = (torch.arange(height, device=places.device) - places[..., :1]) % height
    columns = (torch.arange(width, device=places.device) - places[..., 1:]) % width
    sample = torch.arange(len(figures), device=places.device)[:, None, None, None]
    last = figures.movedim(1, -1)
    moved = last[sample, rows[..., :, None], columns[..., None, :]].movedim(-1, 2)
    return moved + (1 - moved) * ground[:, None]
