"""Squared norms of each sample's gradients in any network that torch.func goes through."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from critical_periods.metrics.functional.scores import ScoreRoot

# What torch says of a network that draws random numbers where it should not.
_DRAWS = "randomness error mode"


def norms_by_func(
    network: nn.Module,
    views: Sequence[Tensor],
    root: ScoreRoot,
    signs: Tensor | None,
    chunk_size: int,
) -> dict[str, Tensor]:
    """The squared norms of the gradients that S's columns, or S ε, give: float64 [B] a parameter.

    Args:
        network: in evaluation mode.
        views: one batch [B, ...] a view.
        root: S of each sample.
        signs: ε, [B, draws, K, places]; by default all columns.
        chunk_size: samples whose gradients are held at once.
    """
    parameters = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
    given = [root.p, root.diagonal, root.factor, root.rank]
    if signs is not None:
        given = [root.times(signs)]

    def norms_of_one(given: Sequence[Tensor], *sample: Tensor) -> dict[str, Tensor]:
        batch = tuple(view.unsqueeze(0) for view in sample)

        def call(weights: dict[str, Tensor]) -> Tensor:
            # Copies, should a network write into its buffers even in evaluation mode.
            buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
            return functional_call(network, weights | buffers, batch)

        output, pull_back = vjp(call, parameters)[:2]
        if signs is None:
            of_one = ScoreRoot._make((*given, root.columns))
            directions = map(of_one.column, range(root.columns))
        else:
            directions = iter(given[0])
        norms: dict[str, Tensor] = {}
        for direction in directions:
            gradients = pull_back(direction.to(output.dtype).reshape(output.shape))[0]
            for name, gradient in gradients.items():
                wide = torch.promote_types(gradient.dtype, torch.float32)
                norm = gradient.square().sum(dtype=wide).double()
                norms[name] = norms[name] + norm if name in norms else norm
        return norms

    with torch.no_grad():
        try:
            return torch.vmap(norms_of_one, chunk_size=chunk_size)(given, *views)
        except (RuntimeError, ValueError) as error:
            # Recurrent networks, and what asks for values, such as of masks, take one at a time.
            if isinstance(error, torch.OutOfMemoryError) or _DRAWS in str(error):
                raise
        samples = zip(zip(*given, strict=True), *views, strict=True)
        norms = [norms_of_one(*sample) for sample in samples]
    return {name: torch.stack([one[name] for one in norms]) for name in norms[0]}
