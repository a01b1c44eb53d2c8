"""Copies of metrics that look at something which is not theirs to copy."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torchmetrics import Metric

M = TypeVar("M", bound=Metric)


def copy_around(metric: M, kept: Any, memo: dict[int, Any]) -> M:
    """A deep copy of a metric that shares one thing with it, such as the network it looks at.

    ``torchmetrics`` copies metrics into collections and for ``clone``; a copied network would no
    longer be the one that is trained.

    Args:
        metric: whose ``__deepcopy__`` this is.
        kept: what is not copied.
        memo: of ``copy.deepcopy``.
    """
    memo[id(kept)] = kept
    new = memo[id(metric)] = type(metric).__new__(type(metric))
    new.__setstate__(copy.deepcopy(metric.__getstate__(), memo))
    return new
