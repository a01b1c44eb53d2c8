"""What a metric looks at but does not own, such as the network, and so shares with its copies."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Holds a thing that deep copies share.

    ``torchmetrics`` copies metrics into collections and for ``clone``; a copied network would no
    longer be the one that is trained. Nor does a network that is held here become a sub-module.

    Args:
        value: the thing.

    Example:
        >>> import copy
        >>> holder = Shared([1])
        >>> copy.deepcopy(holder).value is holder.value
        True
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared[T]:
        return self
