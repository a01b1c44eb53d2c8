"""Summaries of a distribution of relative source variances: polarisation, histogram."""

import torch
from torch import Tensor


def polarization(rsv: Tensor) -> Tensor:
    """The share of live entries with |RSV| > 0.5.

    At 0.5 one view's source variance is three times the other's.

    Args:
        rsv: signed RSVs of two views, one entry a unit and fixed pair, any shape; NaN is dead.

    Returns:
        A scalar between 0 and 1; NaN when every entry is dead.

    Example:
        >>> polarization(torch.tensor([1.0, -0.9, 0.1, 0.5, float("nan")]))
        tensor(0.5000)
    """
    live = rsv[~rsv.isnan()]
    return (live.abs() > 0.5).to(rsv.dtype).mean()


def dead_units(rsv: Tensor) -> Tensor:
    """The number of entries, one a unit and fixed pair, that vary with no view: NaN.

    ``rsv.nanmean()`` is the mean RSV without them.

    Args:
        rsv: RSVs of any shape; NaN is dead. Shares of more than two views have each dead unit
            once a view.

    Returns:
        An int64 scalar.

    Example:
        >>> dead_units(torch.tensor([[0.3, float("nan")], [float("nan"), 1.0]]))
        tensor(2)
    """
    return rsv.isnan().sum()


def rsv_histogram(rsv: Tensor, bins: int = 40) -> tuple[Tensor, Tensor]:
    """A histogram from -1 to 1 of the RSVs of all units and fixed pairs.

    Bins are half-open, [low, high), and the last one closed, as in NumPy. Dead entries (NaN) are
    left out. Fig. 4 and 6 of Kleinman et al. (CVPR 2023) have 40 bins.

    Args:
        rsv: signed RSVs of two views, any shape.
        bins: the number of bins, equally wide.

    Returns:
        Counts, int64 [bins], and edges, float64 [bins + 1].

    Example:
        >>> counts, edges = rsv_histogram(torch.tensor([-1.0, 0.0, 0.9, 1.0, float("nan")]), bins=4)
        >>> counts, edges.tolist()
        (tensor([1, 0, 1, 2]), [-1.0, -0.5, 0.0, 0.5, 1.0])
    """
    edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64, device=rsv.device)
    live = rsv[~rsv.isnan()].double()
    index = torch.bucketize(live, edges[1:-1], right=True)
    return torch.bincount(index, minlength=bins), edges
