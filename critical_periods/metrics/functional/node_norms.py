"""Squared norms of each sample's gradients of one layer's parameters, without these gradients.

A sample's gradient of the weights of a layer is a sum, over places or tokens, of outer products of
the gradient g of what the layer puts out and of what it takes, a. Of such a sum only the norm is
wanted:

    ||Σ_s g_s a_sᵀ||² = Σ_st (g_s · g_t)(a_s · a_t),

by the left side where there are many places, by the right one, whose second factor serves all
backward passes, where there are few.

Source: Goodfellow, *Efficient per-example gradient computations* (2015); for sequences and
convolutions Li et al., *Large language models can be strong differentially private learners* (ICLR
2022).
"""

import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from critical_periods.core.autograd_graph import UnknownUseError, Use

# Elementwise work on pairs of places waits for memory, unlike that of matrix products.
_PER_PAIR = 16


class Layout(NamedTuple):
    """How the rows of what a node puts out, its first dimension, belong to samples.

    Attributes:
        node: its name.
        rows: of each sample, such as its tokens.
        together: whether a sample's rows lie side by side, or those of one place of all samples.
    """

    node: str
    rows: int
    together: bool


class NodeNorms:
    """Squared norms of each sample's gradients of the parameters of one node of the graph.

    Args:
        use: the node and its parameters.
        layout: of its rows.
        samples: B.
        passes: how many backward passes will be taken.

    Attributes:
        edge: where the gradient of what the node puts out is to be had.

    Raises:
        UnknownUseError: the node takes something else than rows of samples.
    """

    def __init__(self, use: Use, layout: Layout, samples: int, passes: int) -> None:
        self.use, self.layout, self.samples = use, layout, samples
        self.edge = GradientEdge(use.node, 0)
        self.input = self._input()
        self._by_pairs = self._prefers_pairs(passes)
        self._pairs: Tensor | None = None
        self._norms: dict[nn.Parameter, Tensor] = {}

    def add(self, gradient: Tensor) -> None:
        """Adds a backward pass, by the gradient of what the node puts out."""
        if self.use.kind == "multiply":
            gradient = self._times_input(gradient)
        gradient = self._by_sample(gradient)
        for role, parameter in self.use.parameters.items():
            if role == "weight" and self.use.kind in ("convolution", "linear"):
                if self._by_pairs:
                    self._add_pairs(gradient)
                    continue
                norms = self._of_products(gradient)
            elif role == "weight" and self.use.kind.endswith("norm"):
                norms = _square(self._summed(self._times_input(gradient), parameter))
            else:
                norms = _square(self._summed(gradient, parameter))
            if parameter in self._norms:
                norms = norms + self._norms[parameter]
            self._norms[parameter] = norms

    def norms(self) -> dict[nn.Parameter, Tensor]:
        """The squared norms [B] by parameter, summed over the passes."""
        if self._pairs is None:
            return self._norms
        dots = self._pairs.flatten(1).unsqueeze(1) @ self._pairs_of_input().flatten(1).unsqueeze(2)
        groups = len(dots) // self.samples
        # Rounding alone makes them negative.
        norms = dots.view(self.samples, groups).sum(1).clamp(min=0)
        return self._norms | {self.use.parameters["weight"]: norms}

    # What multiplies the gradient: [B, rows, ...], of a product as it is, or nothing.

    def _input(self) -> Tensor | None:
        use = self.use
        if "weight" not in use.parameters:
            return None
        if use.kind == "linear":
            return self._by_sample(use.saved("mat1" if "Addmm" in use.node.name() else "self"))
        if use.kind == "multiply":
            return use.saved("other" if use.place == 0 else "self").detach()
        x = use.saved("input").detach()
        if use.kind == "batch_norm":
            channels = [1, -1] + [1] * (x.ndim - 2)
            mean, variance = use.saved("running_mean"), use.saved("running_var")
            if use.saved("training") or mean is None:
                raise UnknownUseError("batch norm takes the statistics of the batch")
            scale = (variance + use.saved("eps")).rsqrt()
            x = (x - mean.view(channels)) * scale.view(channels)
        if use.kind == "group_norm":
            groups = x.unflatten(1, (use.saved("group"), -1)).flatten(2)
            mean, scale = (use.saved(name).unsqueeze(2) for name in ("result1", "result2"))
            x = ((groups - mean) * scale).view(x.shape)
        if use.kind == "layer_norm":
            x = (x - use.saved("result1")) * use.saved("result2")
        return self._by_sample(x)

    def _times_input(self, gradient: Tensor) -> Tensor:
        assert self.input is not None
        return gradient * self.input

    def _by_sample(self, value: Tensor) -> Tensor:
        """[B, rows, ...] of the rows [B·rows, ...] of all samples."""
        value, rows = rows_of(self.use, value), self.layout.rows
        if len(value) != self.samples * rows:
            raise UnknownUseError(f"{self.use.name} takes {list(value.shape)}")
        if self.layout.together:
            return value.unflatten(0, (self.samples, rows))
        return value.unflatten(0, (rows, self.samples)).transpose(0, 1)

    def _summed(self, values: Tensor, parameter: nn.Parameter) -> Tensor:
        """Sums of [B, rows, ...] over all that a parameter is the same for: [B, ...]."""
        kind = self.use.kind
        if kind in ("convolution", "batch_norm", "group_norm"):
            return values.flatten(3).sum((1, 3)) if values.ndim > 3 else values.sum(1)
        if kind in ("linear", "layer_norm"):
            return values.sum(1)
        core = _own_shape(parameter)
        return values.sum([1, *(2 + i for i, size in enumerate(core) if size == 1)])

    # Products: [B, rows, in] and [B, rows, out], or [B, rows, in, *space] and [B, rows, out, *].

    def _prefers_pairs(self, passes: int) -> bool:
        """Whether the norm of a sum of outer products is cheaper by pairs of places."""
        use = self.use
        if self.input is None or use.kind not in ("linear", "convolution"):
            return False
        if use.kind == "linear":
            rows, inputs = self.input.shape[1:]
            outputs = use.parameters["weight"].numel() // inputs
            return rows * (inputs / passes + outputs + _PER_PAIR) < inputs * outputs
        weight = use.parameters["weight"]
        if use.saved("transposed") or self.input.shape[1] > 1:
            return False
        outputs, inputs, *kernel = weight.shape
        groups, taps = use.saved("groups"), math.prod(kernel)
        before = math.prod(self._padded()[0])
        after = math.prod(self._places())
        products = before**2 * inputs * groups / passes + after**2 * outputs
        elementwise = _PER_PAIR * groups * after**2 * (1 + taps / passes)
        return products + elementwise < after * inputs * taps * outputs

    def _padded(self) -> tuple[list[int], list[int]]:
        """The sizes of a convolution's padded input, and the paddings as functional.pad has it."""
        assert self.input is not None
        padding = list(self.use.saved("padding"))
        sizes = [size + 2 * p for size, p in zip(self.input.shape[3:], padding, strict=True)]
        return sizes, [p for each in reversed(padding) for p in (each, each)]

    def _places(self) -> list[int]:
        """How many places a convolution has in each dimension."""
        kernel = self.use.parameters["weight"].shape[2:]
        settings = (self.use.saved("dilation"), self.use.saved("stride"))
        sizes = zip(self._padded()[0], kernel, *settings, strict=True)
        return [(size - d * (k - 1) - 1) // s + 1 for size, k, d, s in sizes]

    def _pairs_of_input(self) -> Tensor:
        """a_s · a_t of all places: [B, places, places], of a convolution [B·groups, …]."""
        x = self.input
        assert x is not None
        if self.use.kind == "linear":
            return x @ x.mT
        groups = self.use.saved("groups")
        sizes, padding = self._padded()
        x = nn.functional.pad(x[:, 0], padding).unflatten(1, (groups, -1)).flatten(0, 1).flatten(2)
        pairs = (x.mT @ x).unflatten(1, sizes).unflatten(-1, sizes)
        # The dot product of two patches is the sum of those of their pixels.
        kernel = self.use.parameters["weight"].shape[2:]
        dilation, stride = self.use.saved("dilation"), self.use.saved("stride")
        total: Tensor | int = 0
        for tap in product(*map(range, kernel)):
            some = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, dilation, stride, self._places(), strict=True)
            )
            total = pairs[(slice(None), *some, *some)] + total
        assert isinstance(total, Tensor)
        places = math.prod(self._places())
        return total.reshape(-1, places, places)

    def _add_pairs(self, gradient: Tensor) -> None:
        """Adds g_s · g_t of all places."""
        if self.use.kind == "convolution":
            groups = self.use.saved("groups")
            gradient = gradient[:, 0].unflatten(1, (groups, -1)).flatten(0, 1).flatten(2).mT
        if self._pairs is None:
            self._pairs = gradient @ gradient.mT
        else:
            self._pairs.baddbmm_(gradient, gradient.mT)

    def _of_products(self, gradient: Tensor) -> Tensor:
        x = self.input
        assert x is not None
        if self.use.kind == "linear":
            if x.shape[1] == 1:
                return _square(x) * _square(gradient)
            return _square(gradient.mT @ x)
        return _square(torch.vmap(self._weight_gradient)(x, gradient))

    def _weight_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        use = self.use
        names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
        settings = [use.saved(name) for name in names]
        weight = use.parameters["weight"].detach()
        backward = torch.ops.aten.convolution_backward
        found: Tensor = backward(gradient, x, weight, None, *settings, (False, True, False))[1]
        return found


def rows_of(use: Use, value: Tensor) -> Tensor:
    """What a node takes or puts out, with the rows of all samples in its first dimension."""
    own = 0
    if use.kind == "layer_norm":
        own = len(use.saved("normalized_shape"))
    elif use.kind in ("add", "multiply"):
        own = max(len(_own_shape(parameter)) for parameter in use.parameters.values())
    else:
        return value.detach()
    if own == value.ndim:
        raise UnknownUseError(f"{use.name} takes a parameter that differs between samples")
    return value.detach().flatten(0, value.ndim - own - 1)


def _own_shape(parameter: nn.Parameter) -> list[int]:
    """The shape of a parameter that is added to tensors, without the ones that come first."""
    shape = list(parameter.shape)
    while shape and shape[0] == 1:
        shape.pop(0)
    return shape


def _square(values: Tensor) -> Tensor:
    """The sum of squares of each sample, [B]."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return values.flatten(1).square().sum(1, dtype=wide)
