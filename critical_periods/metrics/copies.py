"""A reference to an object that a metric uses but does not own, such as the network it measures."""

from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Holds an object that copies of its owner share instead of copying it.

    As an attribute of a ``Metric`` it also keeps a network from being registered as a sub-module,
    whose parameters and device would be the metric's. Pickling copies the object.

    Example:
        >>> import copy
        >>> owner = {"network": Shared([1, 2])}
        >>> copy.deepcopy(owner)["network"].value is owner["network"].value
        True
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
