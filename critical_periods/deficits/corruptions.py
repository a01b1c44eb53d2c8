"""Common corruptions of images at five strengths, made on whole batches where they are."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError, near
from critical_periods.deficits.blur import Blur
from critical_periods.deficits.faded import LowContrast

Corruption = Literal["noise", "blur", "contrast", "pixelation"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)

# By strength, from 1 to 5: the standard deviation of noise on normalised images; that of a Gaussian
# blur, as a share of the smaller side; the contrast that is kept; the share of rows that is kept.
_SETTINGS: dict[Corruption, tuple[float, ...]] = {
    "noise": (0.2, 0.4, 0.6, 0.9, 1.3),
    "blur": (0.015, 0.025, 0.04, 0.06, 0.09),
    "contrast": (0.75, 0.5, 0.35, 0.2, 0.1),
    "pixelation": (0.75, 0.6, 0.45, 0.35, 0.25),
}


def corrupted(
    images: Tensor, kind: Corruption, strength: int, generator: torch.Generator | None = None
) -> Tensor:
    """Normalised images with a corruption, after Hendrycks & Dietterich (ICLR 2019).

    Their kinds, at five strengths of our own, made for images of any size: Gaussian noise, Gaussian
    blur, contrast, and pixelation (averaged to fewer rows and columns, and repeated to the size).

    Args:
        images: [B, C, H, W], normalised.
        kind: ``noise``, ``blur``, ``contrast`` or ``pixelation``.
        strength: 1 to 5.
        generator: of the noise, on the device of the images.

    Raises:
        UserError: there is no such kind or strength.

    Example:
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> corrupted(image, "pixelation", 3)[0, 0, 0]
        tensor([2.5000, 2.5000, 4.5000, 4.5000])
    """
    if kind not in CORRUPTIONS:
        raise UserError(f"the corruption {kind!r} is unknown; {near(kind, CORRUPTIONS)}")
    if strength not in range(1, 6):
        raise UserError(f"strength={strength} of a corruption must be 1 to 5.")
    setting = _SETTINGS[kind][strength - 1]
    if kind == "noise":
        drawn = torch.randn(images.shape, generator=generator, device=images.device)
        return images + setting * drawn.to(images.dtype)
    if kind == "blur":
        return Blur(sigma=setting * min(images.shape[-2:])).degrade(images)
    if kind == "contrast":
        return LowContrast(setting).degrade(images)
    size = images.shape[-2:]
    height, width = (max(1, round(setting * side)) for side in size)
    small = F.adaptive_avg_pool2d(images, (height, width))
    return F.interpolate(small, size, mode="nearest")
