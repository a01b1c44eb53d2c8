"""Source variance of units, and its comparison between views: relative source variance (RSV)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from critical_periods.core.errors import UserError

# Rounding changes a unit by a few eps times the size of its layer: two float32 kernels of one
# 20-layer network differed by up to 27 eps, a standard deviation of at most half of that.
NOISE = 32


def source_variance(
    function: Callable[..., Tensor],
    fixed: Sequence[Tensor],
    pool: Tensor,
    view: int,
    batch_size: int = 512,
) -> Tensor:
    """The variance of each unit over draws of one view, the other views fixed.

    For unit i, view A and a fixed sample b of the other views,

        SV_i(A, b) = Var_{a ~ p(a)} f_i(a, b),

    estimated by the population variance over the draws in ``pool``, which come from the marginal
    p(a), independently of b. Moments are float64; variances that rounding alone explains are
    exactly zero (see :func:`variance_above_noise`).

    Source: Kleinman, Achille & Soatto, *Critical Learning Periods for Multisensory Integration in
    Deep Networks* (CVPR 2023), section 3.

    Args:
        function: takes one tensor a view, [B, ...] each, and returns a representation [B, *units].
            The samples of a batch must not affect each other (batch norm in evaluation mode).
        fixed: the fixed samples, one tensor [K, ...] a view.
        pool: N draws of the one view, [N, ...].
        view: which view is drawn anew, from 0.
        batch_size: roughly the largest batch that the function is given.

    Returns:
        The source variances, float64 [K, *units].

    Raises:
        UserError: the view does not exist, the pool is empty, or the function does not return one
            representation a sample.

    Example:
        >>> a = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> fixed = [torch.zeros(2, 1), torch.zeros(2, 1)]
        >>> source_variance(lambda a, b: 2 * a + b, fixed, a, view=0)
        tensor([[5.],
                [5.]], dtype=torch.float64)
    """
    if not 0 <= view < len(fixed):
        raise UserError(f"view {view} does not exist; choose one of 0 to {len(fixed) - 1}.")
    if len(pool) == 0:
        raise UserError("pool holds no draws; give at least one.")
    with torch.no_grad():
        reference = function(*fixed)
    sums = shifted_sums(function, fixed, pool, view, reference.double(), batch_size)
    eps = torch.finfo(reference.dtype).eps
    return variance_above_noise(sums, len(pool), reference.double(), eps)


def relative_source_variance(variances: Tensor) -> Tensor:
    """Relative source variance (RSV): the source variances of all views, compared.

    For two views A (view 0) and B (view 1)

        RSV_i(a, b) = (SV_i(A, b) - SV_i(B, a)) / (SV_i(A, b) + SV_i(B, a)),

    from -1 to 1: **+1 is a unit that varies with view 0 alone**, -1 one that varies with view 1
    alone, 0 one that varies with both alike. (This is the sign of the definition; Fig. 4 of the
    paper has the opposite one.) For more views it is the share SV_v / Σ_u SV_u of each, from 0 to
    1.

    Source: Kleinman et al. (CVPR 2023), section 3; more than two views: appendix A.2.

    Args:
        variances: source variances, view by view, [V, ...].

    Returns:
        For two views the signed RSV [...], for more the shares [V, ...]. NaN where no view has any
        variance: a dead unit.

    Raises:
        UserError: there are fewer than two views.

    Example:
        >>> relative_source_variance(torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0]]))
        tensor([ 0.5000, -1.0000,     nan])
        >>> relative_source_variance(torch.tensor([[3.0], [1.0], [0.0]])).squeeze()
        tensor([0.7500, 0.2500, 0.0000])
    """
    if len(variances) < 2:
        raise UserError(f"variances cover {len(variances)} view; an RSV compares at least two.")
    total = variances.sum(0)
    if len(variances) == 2:
        return (variances[0] - variances[1]) / total
    return variances / total


@torch.no_grad()
def shifted_sums(
    function: Callable[..., Tensor],
    fixed: Sequence[Tensor],
    pool: Tensor,
    view: int,
    reference: Tensor,
    batch_size: int = 512,
) -> Tensor:
    """Sums over the pool of x - r and (x - r)², where x is the representation and r its reference.

    Subtracting the reference avoids cancellation in the variance, and the sums of two pools add up
    to the sums of both. The reference has the representations of the fixed samples, float64
    [K, *units]; the other arguments are those of :func:`source_variance`.

    Returns:
        Both sums, float64 [2, K, *units].

    Raises:
        UserError: the function does not return one representation [*units] a sample.

    Example:
        >>> fixed, pool = [torch.zeros(1, 1)] * 2, torch.tensor([[1.0], [3.0]])
        >>> shifted_sums(torch.add, fixed, pool, 0, torch.zeros(1, 1).double()).flatten()
        tensor([ 4., 10.], dtype=torch.float64)
    """
    sums = torch.zeros(2, *reference.shape, dtype=torch.float64, device=reference.device)
    pairs_at_once = max(1, batch_size // len(pool))
    for start in range(0, len(fixed[0]), pairs_at_once):
        pairs = slice(start, start + pairs_at_once)
        some = [samples[pairs] for samples in fixed]
        for draws in pool.split(batch_size):
            views = [samples.repeat_interleave(len(draws), 0) for samples in some]
            views[view] = draws.repeat(len(some[view]), *[1] * (draws.ndim - 1))
            values = function(*views).double()
            if values.shape != (len(views[view]), *reference.shape[1:]):
                raise UserError(
                    f"function returned shape {list(values.shape)} for {len(views[view])} samples; "
                    f"it must return one representation {list(reference.shape[1:])} a sample."
                )
            shifted = values.unflatten(0, (-1, len(draws))) - reference[pairs].unsqueeze(1)
            sums[0, pairs] += shifted.sum(1)
            sums[1, pairs] += shifted.square().sum(1)
    return sums


def variance_above_noise(
    sums: Tensor, count: Tensor | int, reference: Tensor, eps: float
) -> Tensor:
    """Population variance from shifted sums, exactly zero where rounding alone explains it.

        Var = S_2 / N - (S_1 / N)²,    0 where Var <= (32 eps rms)² + 32 eps_sums S_2 / N.

    A unit that does not depend on the varied view may still change by rounding, as a kernel may add
    in another order in another batch, by a few ``eps`` times the root mean square of the layer
    (``rms``, over all units and draws of the fixed sample). In float32 the threshold is 4e-6 of the
    rms; in bfloat16 it is a quarter, so measure in float32.

    Args:
        sums: sums of x - r and (x - r)², [2, K, *units] (:func:`shifted_sums`).
        count: the number of draws in them.
        reference: r, [K, *units].
        eps: spacing of the representation's own floating-point type.

    Returns:
        The variances, [K, *units].

    Example:
        >>> sums = torch.tensor([[[2.0, 1e-7]], [[4.0, 1e-14]]])  # two units, one of them constant
        >>> variance_above_noise(sums, 2, reference=torch.ones(1, 2), eps=1.2e-7)
        tensor([[1., 0.]])
    """
    mean, mean_square = sums / count
    variance = (mean_square - mean.square()).clamp(min=0)
    power = ((reference + mean).square() + variance).flatten(1).mean(1)
    floor = (NOISE * eps) ** 2 * power.reshape(-1, *[1] * (variance.ndim - 1))
    floor = floor + NOISE * torch.finfo(sums.dtype).eps * mean_square
    return variance.masked_fill(variance <= floor, 0)
