"""Deep linear networks of several paths, in which critical periods can be computed."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.models.checks import check_sizes, check_views
from critical_periods.models.network import Network


class MultiPathLinear(Network):
    """Paths of linear layers without biases, side by side, whose outputs are added.

        f(x) = Σ_p W_p x,   W_p = W_p,D … W_p,2 W_p,1

    Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221): two paths compete for the modes of
    one task, and a path that is frozen for a while may lose them for good. A single path is the
    matrix factorisation of their section on matrix completion.

    The start is random and small, every entry of every layer Gaussian with standard deviation
    scale^(1/D) / sqrt(width); :meth:`align` replaces it by one for which the dynamics are known.

    Args:
        depth: D, weight layers in each path.
        width: units of each hidden layer.
        num_paths: how many paths.
        inputs: numbers in a view.
        outputs: numbers in an output.
        scale: of the random start.

    Raises:
        UserError: an argument is not a whole number of at least one, or the scale not positive.

    Example:
        >>> network = MultiPathLinear(depth=3, width=10)
        >>> network(torch.eye(8)).shape
        torch.Size([8, 15])
        >>> [name for name, _ in network.paths.named_children()]
        ['0', '1']
    """

    def __init__(
        self,
        depth: int = 4,
        width: int = 100,
        num_paths: int = 2,
        inputs: int = 8,
        outputs: int = 15,
        scale: float = 0.001,
    ) -> None:
        super().__init__()
        check_sizes(depth=depth, width=width, num_paths=num_paths, inputs=inputs, outputs=outputs)
        if not scale > 0:
            raise UserError(f"scale={scale} of MultiPathLinear must be positive.")
        self.depth, self.width = depth, width
        self.inputs, self.outputs = inputs, outputs
        sizes = [inputs, *[width] * (depth - 1), outputs]
        self.paths = nn.ModuleList(
            nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))
            for _ in range(num_paths)
        )
        for weight in self.parameters():
            nn.init.normal_(weight, std=scale ** (1 / depth) / math.sqrt(width))

    def forward(self, *views: Tensor) -> Tensor:
        """The summed outputs of a batch.

        Args:
            *views: exactly one tensor [B, ...] of ``inputs`` numbers a sample.

        Returns:
            Outputs [B, outputs].

        Raises:
            UserError: there is more than one view, or none.
        """
        check_views(type(self).__name__, len(views), 1)
        flat = views[0].flatten(1)
        return reduce(torch.add, (path(flat) for path in self.paths))

    def maps(self) -> Tensor:
        """Each path as one matrix W_p, [P, outputs, inputs].

        Example:
            >>> network = MultiPathLinear(depth=2, width=10)
            >>> x = torch.randn(4, 8)
            >>> torch.allclose(x @ network.maps().sum(0).T, network(x), atol=1e-6)
            True
        """
        return torch.stack([reduce(lambda w, later: later @ w, path) for path in self._weights()])

    def mode_strengths(self, target: Tensor) -> Tensor:
        """How much of each mode of a task each path holds: K_pk = u_k^T W_p v_k.

        Args:
            target: the task's map Σ_k s_k u_k v_k^T, [outputs, inputs].

        Returns:
            float64 [P, M], M = min(outputs, inputs); the modes in the order of falling s_k.

        Example:
            >>> network = MultiPathLinear(depth=2, width=4, inputs=3, outputs=3)
            >>> network.align(torch.diag(torch.tensor([3.0, 2.0, 1.0])), strength=0.01)
            >>> network.mode_strengths(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
            tensor([[0.0100, 0.0100, 0.0100],
                    [0.0100, 0.0100, 0.0100]], ...)
        """
        maps = self.maps().double()
        u, v = _singular_vectors(target, maps)
        return torch.einsum("ok,poi,ki->pk", u, maps, v)

    @torch.no_grad()
    def align(self, target: Tensor, strength: float) -> None:
        """Starts every path aligned with a task: each mode of strength K_0, in balanced layers.

            W_1 = R_1 Λ V^T,   W_l = R_l Λ R_(l-1)^T,   W_D = U Λ R_(D-1)^T,   Λ = K_0^(1/D)

        with the singular vectors U, V of the task and R_l of random orthonormal columns.

        Args:
            target: the task's map, [outputs, inputs].
            strength: K_0 of every mode in every path.

        Raises:
            UserError: the strength is not positive, the map of another size, or the hidden layers
                have fewer units than the task has modes.
        """
        if not strength > 0:
            raise UserError(f"strength={strength} of aligned paths must be positive.")
        if target.shape != (self.outputs, self.inputs):
            raise UserError(
                f"the task maps {target.shape[1]} numbers to {target.shape[0]}, but the "
                f"MultiPathLinear has inputs={self.inputs} and outputs={self.outputs}; set them to "
                "that."
            )
        u, v = _singular_vectors(target, next(self.parameters()))
        if self.depth > 1 and self.width < u.shape[1]:
            raise UserError(
                f"width={self.width} of MultiPathLinear is less than the {u.shape[1]} modes of the "
                f"task; choose at least {u.shape[1]}."
            )
        for path in self._weights():
            before = v.T
            for weight in path[:-1]:
                after = nn.init.orthogonal_(weight.new_empty(len(weight), u.shape[1]))
                weight.copy_(strength ** (1 / self.depth) * after @ before.T)
                before = after
            path[-1].copy_(strength ** (1 / self.depth) * u @ before.T)

    def _weights(self) -> list[list[Tensor]]:
        return [list(path.parameters()) for path in self.paths]


def _singular_vectors(target: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """U [outputs, M] and V^T [M, inputs], found in double precision."""
    u, _, v = torch.linalg.svd(target.double(), full_matrices=False)
    return u.to(like), v.to(like)
