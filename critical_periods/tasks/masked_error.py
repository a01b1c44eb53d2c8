"""The error of a reconstruction on the patches that were hidden from it."""

import torch
from torch import Tensor


def masked_error(prediction: Tensor, target: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of each sample over its hidden patches.

        E_b = 1/(n_b P) Σ_(i hidden) |prediction_bi - target_bi|²,

    with n_b hidden patches of P numbers. MultiMAE (Bachmann et al. 2022), section 3.4.

    Args:
        prediction: [B, N, P].
        target: [B, N, P].
        hidden: which patches count, bool [B, N].

    Returns:
        E, [B], float32 or wider, zero where nothing is hidden; and which samples have something
        hidden, bool [B].

    Example:
        >>> prediction, target = torch.zeros(2, 3, 2), torch.tensor([[1.0, 1], [2, 4], [9, 9]])
        >>> masked_error(prediction, target.expand(2, -1, -1), torch.tensor([[1, 1, 0], [0, 0, 0]]))
        (tensor([5.5000, 0.0000]), tensor([ True, False]))
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    error = (prediction.to(wide) - target.to(wide)).square().mean(2)
    number = hidden.sum(1)
    return (error * hidden).sum(1) / number.clamp(min=1), number > 0


def normalised(patches: Tensor) -> Tensor:
    """Patches [..., P] with mean 0 and variance 1 each, (x - mean) / √(variance + 1e-6).

    The variance is the unbiased one (He et al. 2022, MAE, section 4: normalised pixels make a
    better target).

    Example:
        >>> normalised(torch.tensor([[1.0, 2, 3], [7, 7, 7]]))
        tensor([[-1.0000,  0.0000,  1.0000],
                [ 0.0000,  0.0000,  0.0000]])
    """
    wide = patches.to(torch.promote_types(patches.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=-1, keepdim=True)
    return (wide - mean) / (variance + 1e-6).sqrt()
