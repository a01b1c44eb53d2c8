"""Pictures of reconstructions: the input, its mask, the prediction and the target."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from critical_periods.core.files import replacing
from critical_periods.models.multi_view.patches import patch_grid, to_image, to_patches

_COLUMNS = ("input", "mask", "prediction", "target")
# Small images are enlarged to about this many pixels, so that the labels above them have room.
_WIDTH, _HEADER, _GAP = 96, 16, 4


def reconstruction_picture(
    views: Sequence[Tensor], hidden: Tensor, predictions: Sequence[Tensor], patch: int
) -> Image.Image:
    """A row a sample; for each view its input, its mask, its prediction and its target.

    The input has grey where patches are hidden, the mask is black there. The prediction holds what
    the decoder says of every patch, the visible ones too, on which it was not trained. Brightness
    runs from the least to the greatest value of each target.

    Args:
        views: the targets, one tensor [B, C, H, W] a view, C being 1 or 3.
        hidden: which patches were hidden, bool [B, V, N].
        predictions: as the views.
        patch: side of a patch in pixels.

    Example:
        >>> view = torch.rand(2, 1, 32, 32)
        >>> hidden = torch.tensor([[[True, False, False, True]]]).expand(2, -1, -1)
        >>> reconstruction_picture([view], hidden, [view], patch=16).size  # 4 columns, 2 rows
        (400, 216)
    """
    columns = []
    for view, prediction, unseen in zip(views, predictions, hidden.unbind(1), strict=True):
        target, guess = (_brightness(image, view) for image in (view, prediction))
        pixels = unseen[:, :, None].expand_as(to_patches(target, patch))
        unseen = to_image(pixels, patch_grid(view, patch), patch)
        columns += [torch.where(unseen, 0.5, target), 1 - unseen.to(target), guess, target]
    table = torch.stack(columns, dim=1).float().cpu().clamp(0, 1).expand(-1, -1, 3, -1, -1)
    scale = max(1, _WIDTH // table.shape[-1])
    table = table.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    table = torch.nn.functional.pad(table, (0, _GAP, 0, _GAP), value=1.0)
    rows = (rearrange(table, "b k c h w -> (b h) (k w) c") * 255).round().byte().numpy()
    header = np.full((_HEADER, *rows.shape[1:]), 255, dtype=np.uint8)
    picture = Image.fromarray(np.concatenate([header, rows]))
    draw = ImageDraw.Draw(picture)
    for place in range(len(columns)):
        number, kind = divmod(place, len(_COLUMNS))
        draw.text((place * table.shape[-1], 2), f"{_COLUMNS[kind]} {number}", fill="black")
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a PNG file, whole or not at all, and the folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        picture.save(part, format="PNG")


def _brightness(image: Tensor, target: Tensor) -> Tensor:
    """Values as shares of the range of the target."""
    low, high = (end(target, dim=(1, 2, 3), keepdim=True) for end in (torch.amin, torch.amax))
    return (image - low) / (high - low).clamp(min=1e-6)
