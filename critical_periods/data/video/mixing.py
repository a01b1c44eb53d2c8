"""Mixup and CutMix of samples with several views."""

import numpy as np
import torch
import torch.nn.functional as F

from critical_periods.core.batch import Batch
from critical_periods.core.randomness import fold


def mix(batch: Batch, num_classes: int, mixup: float, cutmix: float, *key: int) -> Batch:
    """Each sample mixed with another one of its batch, all views alike.

    With s from Beta(a, a), mixup gives s x_i + (1 - s) x_j, and CutMix puts the rectangle of
    x_j's that has 1 - s of the area, anywhere and cut off at the border, into x_i; then s is what
    is left of x_i's area. The target is s y_i + (1 - s) y_j. Partner, share and rectangle are one
    for all views of a sample, so that its soft target holds for each of them. With both, each is
    used for half of the samples. (Zhang et al. 2018; Yun et al. 2019; Kleinman et al. 2023, A.7:
    mixup 0.8, CutMix 1.0.)

    Args:
        batch: of class numbers.
        num_classes: K.
        mixup: a of mixup's shares; 0 leaves it out.
        cutmix: a of CutMix's shares; 0 leaves it out.
        key: of the draws: the stream, the seed, the epoch, the batch and the rank.

    Returns:
        The batch with mixed views and soft targets [B, K]; as it is where both are 0.

    Example:
        >>> views = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 2, 3, 8, 8)
        >>> whose = torch.full((2,), -1)
        >>> batch = Batch(views, torch.arange(2), whose, torch.arange(2))
        >>> mixed = mix(batch, 2, 0.8, 0.0, 0)
        >>> torch.allclose(mixed.views.mean((1, 2, 3, 4)), mixed.target[:, 1])
        True
    """
    if not mixup and not cutmix:
        return batch
    views, device = batch.views, batch.views.device
    size, (height, width) = len(views), views.shape[-2:]
    # On the CPU, so that every device mixes alike.
    draws = np.random.default_rng(fold(*key))
    partner = torch.from_numpy(draws.permutation(size)).to(device)
    cuts = draws.random(size) < (0.5 if mixup and cutmix else bool(cutmix))
    share = np.where(cuts, *(draws.beta(a or 1.0, a or 1.0, size) for a in (cutmix, mixup)))
    half = np.sqrt(1 - share)[:, None] * (height, width) / 2
    middle = draws.random((size, 2)) * (height, width)
    corners = np.concatenate([middle - half, middle + half], axis=1).round()
    top, left, bottom, right = torch.from_numpy(corners).to(device).T[..., None]
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((rows >= top) & (rows < bottom))[:, :, None]
    inside = inside & ((columns >= left) & (columns < right))[:, None, :]
    shares = torch.from_numpy(share).to(device, views.dtype)[:, None, None]
    is_cut = torch.from_numpy(cuts).to(device)[:, None, None]
    weight = torch.where(is_cut, (~inside).to(views.dtype), shares)
    kept = weight.mean((1, 2))[:, None]
    weight = weight[:, None, None]
    target = F.one_hot(batch.target, num_classes).to(views.dtype)
    return batch._replace(
        views=weight * views + (1 - weight) * views[partner],
        target=kept * target + (1 - kept) * target[partner],
    )
