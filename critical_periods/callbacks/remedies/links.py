"""Pairs of layers in a network, of which the second alone takes what the first alone gives."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from critical_periods.core.trees import tensors_in

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Link(NamedTuple):
    """Two layers that follow each other.

    Attributes:
        first: gives the units, as rows of its weight.
        norms: batch norm of them between the two.
        second: takes them, as columns of its weight; several columns a unit where maps were
            flattened.
    """

    first: nn.Module
    norms: tuple[nn.Module, ...]
    second: nn.Module

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.first.get_parameter("weight"))

    @property
    def columns(self) -> int:
        """How many columns of the second weight belong to each unit."""
        return self.second.get_parameter("weight").shape[1] // self.units

    def by_unit(self, taken: Tensor) -> Tensor:
        """What the second layer takes, by units: [units, ...]."""
        axis = -1 if isinstance(self.second, nn.Linear) else 1
        return taken.movedim(axis, 0).unflatten(0, (self.units, self.columns))


def links(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Link]:
    """The links of a network, by the name of the first layer.

    They are found by calling the network, in evaluation mode and without gradients: with the first
    layer's output set to 0, what the second takes depends on nothing else; a change of one unit
    changes that unit alone; and with what the second takes held, the first does not matter. So
    layers beside a shortcut, or followed by a norm over all units, are no link. Layers that are
    called several times are none, either.

    Args:
        network: of linear and convolutional layers, among others.
        inputs: what it takes, two samples or more.
    """
    order: list[nn.Module] = []
    with ExitStack() as stack:
        for part in network.modules():
            if isinstance(part, (*_WEIGHTED, *_NORMS)):
                hook = part.register_forward_hook(lambda one, *_: order.append(one))
                stack.enter_context(hook)
        network(*inputs)
    names = {part: name for name, part in network.named_modules() if "_orig_mod" not in name}
    places = [place for place, one in enumerate(order) if isinstance(one, _WEIGHTED)]
    found = {}
    for start, stop in pairwise(places):
        first, *between, second = order[start : stop + 1]
        if order.count(first) > 1 or order.count(second) > 1 or getattr(second, "groups", 1) > 1:
            continue
        units, taken = len(first.get_parameter("weight")), second.get_parameter("weight").shape[1]
        norms = tuple(one for one in between if getattr(one, "num_features", 0) == units)
        link = Link(first, norms, second)
        if taken % units == 0 and _is_link(network, inputs, link):
            found[names[first]] = link
    return found


def _is_link(network: nn.Module, inputs: Sequence[Tensor], link: Link) -> bool:
    axis = -1 if isinstance(link.first, nn.Linear) else 1
    taken, answer = passed(network, inputs, link)

    def changed(unit: int) -> Callable[[Tensor], Tensor]:
        def change(output: Tensor) -> Tensor:
            output = output.clone()
            output.select(axis, unit).add_(output.abs().max() + 1)
            return output

        return change

    others = [
        one.roll(1, 0) * 2 + 1 if one.is_floating_point() else one.roll(1, 0) for one in inputs
    ]
    closed, _ = passed(network, inputs, link, torch.zeros_like)
    if not _same(closed, passed(network, others, link, torch.zeros_like)[0]):
        return False
    # Of a link alone are there units to look at.
    if taken.shape[-1 if isinstance(link.second, nn.Linear) else 1] != link.units * link.columns:
        return False
    for unit in {0, link.units - 1}:
        before, after = (
            link.by_unit(passed(network, inputs, link, change)[0])
            for change in (None, changed(unit))
        )
        rest = [one for one in range(link.units) if one != unit]
        if not _same(before[rest], after[rest]):
            return False
    return _same(answer, passed(network, inputs, link, torch.zeros_like, held=taken)[1])


def passed(
    network: nn.Module,
    inputs: Sequence[Tensor],
    link: Link,
    change: Callable[[Tensor], Tensor] | None = None,
    held: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """What the second layer of a link takes, and what the network answers.

    ``change`` is made to what the first layer gives, and the second layer takes what is ``held``.
    """
    taken: list[Tensor] = []

    def give(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if change is None else change(output)

    def take(module: nn.Module, args: Any) -> Any:
        taken.append(args[0].clone())
        return None if held is None else (held, *args[1:])

    with (
        link.first.register_forward_hook(give),
        link.second.register_forward_pre_hook(take),
    ):
        answer = network(*inputs)
    return taken[0], answer


def _same(one: Any, other: Any) -> bool:
    pairs = zip(tensors_in(one), tensors_in(other), strict=True)
    return all(torch.allclose(a, b, 1e-4, 1e-5 * float(a.abs().max())) for a, b in pairs)
