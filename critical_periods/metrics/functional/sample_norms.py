"""Squared norms of each sample's gradients in a network, by the graph of its forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from critical_periods.core.autograd_graph import UnknownUseError, Use, parameter_uses
from critical_periods.core.errors import UserError, reason
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.likelihood import check_outputs
from critical_periods.metrics.functional.node_norms import (
    Layout,
    NodeNorms,
    rows_of,
)


class NormsByGraph:
    """Squared norms of each sample's gradients, from backward passes of whole batches.

    What the graph says is checked twice: how rows belong to samples by the gradients of two, and
    the norms of one sample, in the first call, by backward passes of it alone.

    Args:
        network: in evaluation mode.
        views: one batch [B, ...] a view.
        trained: its parameters that require a gradient.
        likelihood: of the labels given its outputs.

    Attributes:
        example: the outputs of two samples.
        bytes_a_sample: of activations and gradients, roughly.

    Raises:
        UnknownUseError: the network uses a parameter in a way that is not known, mixes samples or
            draws random numbers, or there is one sample alone.
    """

    def __init__(
        self,
        network: nn.Module,
        views: Sequence[Tensor],
        trained: Mapping[str, nn.Parameter],
        likelihood: Likelihood,
    ) -> None:
        self.network, self.trained, self._is_checked = network, trained, False
        if len(views[0]) < 2:
            raise UnknownUseError  # and nothing is slower
        state = _random_state(views[0].device)
        with _unknown_errors(), torch.enable_grad():
            output = network(*(view[:2] for view in views))
        if not torch.equal(state, _random_state(views[0].device)):
            raise UnknownUseError("it draws random numbers")
        try:
            check_outputs(output, 2, likelihood)
        except UserError:
            # In the words of the whole batch.
            check_outputs(network(*views), len(views[0]), likelihood)
            raise
        self.example = output.detach()
        uses = parameter_uses(output, self.trained)
        edges = [GradientEdge(use.node, 0) for use in uses]
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        with _unknown_errors():
            first, second = (
                torch.autograd.grad(output, edges, noise * of, retain_graph=True)
                for of in torch.eye(2).to(output).view(2, 2, *[1] * (output.ndim - 1))
            )
        self._layouts = list(map(_layout, uses, first, second))
        self.bytes_a_sample = max(1, sum(one.nbytes for one in first))

    def of(
        self,
        views: Sequence[Tensor],
        output: Tensor,
        direction: Callable[[int], Tensor],
        passes: int,
    ) -> dict[nn.Parameter, Tensor]:
        """The norms [B] by parameter, summed over backward passes.

        Args:
            views: what the network was given.
            output: of a forward pass with its graph.
            direction: what is pulled back in each pass, as many numbers as the output.
            passes: how many.
        """
        uses = parameter_uses(output, self.trained)
        if [use.name for use in uses] != [layout.node for layout in self._layouts]:
            raise UnknownUseError("it computes other things for other samples")
        nodes = [
            NodeNorms(use, layout, len(output), passes)
            for use, layout in zip(uses, self._layouts, strict=True)
        ]
        edges = [node.edge for node in nodes]
        for number in range(passes):
            score = direction(number).to(output.dtype).reshape(output.shape)
            found = torch.autograd.grad(output, edges, score, retain_graph=number + 1 < passes)
            for node, gradient in zip(nodes, found, strict=True):
                node.add(gradient)
        norms = {parameter: each for node in nodes for parameter, each in node.norms().items()}
        if not self._is_checked:
            self._check([view[-1:] for view in views], norms, direction, passes)
        return norms

    def _check(
        self,
        views: Sequence[Tensor],
        norms: Mapping[nn.Parameter, Tensor],
        direction: Callable[[int], Tensor],
        passes: int,
    ) -> None:
        """Compares the norms of the last sample with those of it alone."""
        with torch.enable_grad():
            output = self.network(*views)
        wanted = dict.fromkeys(norms, 0.0)
        for number in range(passes):
            score = direction(number)[-1:].to(output.dtype).reshape(output.shape)
            found = torch.autograd.grad(output, [*norms], score, retain_graph=True)
            for parameter, gradient in zip(norms, found, strict=True):
                wanted[parameter] += float(gradient.double().square().sum())
        # How far norms may be from those of another kernel.
        tolerance = 1e-6 if output.dtype == torch.float64 else 0.02
        rounding = sum(wanted.values()) / 100
        for parameter, value in wanted.items():
            if not abs(float(norms[parameter][-1]) - value) <= tolerance * (value + rounding):
                raise UnknownUseError("samples of a batch do not go through it one by one")
        self._is_checked = True


def _layout(use: Use, *gradients: Tensor) -> Layout:
    """The layout of two samples' rows, given the gradients that each of them alone causes."""
    first, second = (
        rows_of(use, one).flatten(1).ne(0).any(1).nonzero().flatten() for one in gradients
    )
    rows, rest = divmod(len(rows_of(use, gradients[0])), 2)
    if not rest and bool((first < rows).all() & (second >= rows).all()):
        return Layout(use.name, rows, True)
    if not rest and bool((first % 2 == 0).all() & (second % 2 == 1).all()):
        return Layout(use.name, rows, False)
    raise UnknownUseError(f"{use.name} mixes samples")


@contextmanager
def _unknown_errors() -> Iterator[None]:
    """What goes wrong here is told where the network is tried in another way."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnknownUseError(reason(error)) from error


def _random_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)
