"""Where a forward pass uses its parameters, as torch's graph of gradients says.

The names of the graph's nodes and of what they keep are internals of torch, like those in
:mod:`critical_periods.core.internals`. A release that changes them makes :func:`parameter_uses`
raise an error, and a test in ``tests/core/test_internals.py`` fail.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

# What a node computes, and which of its inputs may be parameters, by what they are to it.
_KINDS = {
    "ConvolutionBackward0": ("convolution", {1: "weight", 2: "bias"}),
    "AddmmBackward0": ("linear", {0: "bias", 2: "weight"}),
    "MmBackward0": ("linear", {1: "weight"}),
    "NativeBatchNormBackward0": ("batch_norm", {1: "weight", 2: "bias"}),
    "NativeLayerNormBackward0": ("layer_norm", {1: "weight", 2: "bias"}),
    "NativeGroupNormBackward0": ("group_norm", {1: "weight", 2: "bias"}),
    "AddBackward0": ("add", {0: "bias", 1: "bias"}),
    "ExpandBackward0": ("add", {0: "bias"}),
    "MulBackward0": ("multiply", {0: "weight", 1: "weight"}),
}


class UnknownUseError(Exception):
    """A parameter is used in a way that norms are not known of."""


@dataclass
class Use:
    """One node of the graph, and the parameters that it takes.

    Attributes:
        node: of the graph.
        kind: what it computes.
        parameters: its parameters by what they are to it, ``weight`` or ``bias``.
        place: among its inputs, of one of them.
    """

    node: Any
    kind: str
    parameters: dict[str, nn.Parameter]
    place: int

    @property
    def name(self) -> str:
        """What torch calls the node's operation."""
        return str(self.node.name()).removesuffix("Backward0")

    def saved(self, name: str) -> Any:
        """What the node keeps by a name, such as ``input``."""
        return getattr(self.node, f"_saved_{name}")


def parameter_uses(output: Tensor, trained: Mapping[str, nn.Parameter]) -> list[Use]:
    """The uses of parameters in a graph, the first ones in the forward pass last.

    Args:
        output: of a forward pass.
        trained: the parameters that are looked for, by name.

    Returns:
        The uses, each parameter once.

    Raises:
        UnknownUseError: a parameter is used in a way that is not known, twice or not at all.
    """
    names = {id(parameter): name for name, parameter in trained.items()}
    uses: dict[Any, Use] = {}
    used: set[int] = set()
    for node in _nodes(output):
        kind, roles = _KINDS.get(node.name(), ("", {}))
        for place, (before, _) in enumerate(node.next_functions):
            is_transposed = before is not None and before.name() == "TBackward0"
            source = before.next_functions[0][0] if is_transposed else before
            parameter: Any = getattr(source, "variable", None)
            # That of a transposed one is looked at from what takes it.
            if id(parameter) not in names or node.name() == "TBackward0":
                continue
            name, role = names[id(parameter)], roles.get(place)
            if role is None or (is_transposed and (kind, role) != ("linear", "weight")):
                into = node.name().removesuffix("Backward0")
                raise UnknownUseError(f"{name!r} goes into {into}")
            use = uses.setdefault(node, Use(node, kind, {}, place))
            if id(parameter) in used or role in use.parameters:
                raise UnknownUseError(f"{name!r} is used twice")
            used.add(id(parameter))
            use.parameters[role] = parameter
    missing = [name for of, name in names.items() if of not in used]
    if missing:
        raise UnknownUseError(f"{missing[0]!r} is not used, or by what is not known")
    return list(uses.values())


def _nodes(output: Tensor) -> Iterator[Any]:
    seen, ahead = set[Any](), [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        ahead += [before for before, _ in node.next_functions]
