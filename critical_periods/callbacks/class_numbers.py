"""Which class of one data set is which of another, by their names."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from critical_periods.core.errors import UserError, near


def class_numbers(
    owner: str, source: Sequence[str], target: Sequence[str], mapping: Mapping[str, str] | None
) -> Tensor:
    """The target's number of each class of a source, by their names.

    Args:
        owner: the callback that asks, for messages.
        source: names of its classes, in order.
        target: the same of the other data set.
        mapping: the target's name for some of the source's; the others keep theirs. ``None``: both
            have the same names in the same order.

    Raises:
        UserError: the names, or without a mapping their order, differ, or the mapping names a class
            that does not exist.

    Example:
        >>> class_numbers("SourceWindow", ["happy", "sad"], ["joy", "sad"], {"happy": "joy"})
        tensor([0, 1])
    """
    theirs, ours, given = list(source), list(target), dict(mapping or {})
    for names, known, whose in ((given, theirs, "source"), (given.values(), ours, "target")):
        for name in names:
            if name not in known:
                hint = near(name, known)
                raise UserError(
                    f"mapping of {owner} names {name!r}, no class of the {whose}; {hint}"
                )
    named = [given.get(name, name) for name in theirs]
    for name, own in zip(theirs, named, strict=True):
        if own not in ours:
            raise UserError(
                f"the source of {owner} has the class {name!r} and the target has not; choose its "
                f"classes by name, or give a mapping ({name}: …); {near(name, ours)}"
            )
    if mapping is None:
        if missing := [name for name in ours if name not in theirs]:
            raise UserError(
                f"the target has the class {missing[0]!r} and the source of {owner} has not; let "
                "both have the same classes, or give a mapping."
            )
        if theirs != ours:
            raise UserError(
                f"the classes of the source of {owner} are in the order {', '.join(theirs)}, those "
                f"of the target in the order {', '.join(ours)}; order them alike, or give "
                "mapping={}, which goes by their names."
            )
    return torch.tensor([ours.index(name) for name in named])
