"""A deep linear network of several paths, whose learning dynamics are known in theory."""

import math
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.layers import product
from critical_periods.models.checks import check_sizes, check_views
from critical_periods.models.network import Network


class MultiPathLinear(Network):
    """Parallel paths of linear layers without biases, whose outputs are added.

        f(x) = Σ_p W_p x,   W_p = W_p,D … W_p,2 W_p,1

    Every weight starts as Gaussian with standard deviation scale^(1/D) / sqrt(width); :meth:`align`
    gives it the start for which the dynamics are known.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221). Two paths compete for the
    modes of one task, and one that is frozen for a while may not win them back. A single
    path is the matrix factorisation of their section on matrix completion.

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
        """The summed outputs [B, outputs] of one view [B, ...] of ``inputs`` numbers a sample."""
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
        return torch.stack([product(path) for path in self._weights()])

    def mode_strengths(self, target: Tensor) -> Tensor:
        """The strength of each mode of a task in each path: K_pk = u_k^T W_p v_k.

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
        """Sets every path to balanced layers in which each mode of a task has the strength K_0.

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


def paths_and_task(owner: str, network: nn.Module, data: Any) -> tuple[MultiPathLinear, Tensor]:
    """The network as a :class:`MultiPathLinear`, and the map of the data's task, ``task_map()``.

    Raises:
        UserError: the network or the data is another; the message says that ``owner`` needs these.
    """
    if not isinstance(network, MultiPathLinear) or not hasattr(data, "task_map"):
        raise UserError(
            f"{owner} needs a MultiPathLinear and a HierarchyDataModule, but this run has "
            f"{type(network).__name__} and {type(data).__name__}; leave it out, or use those."
        )
    return network, data.task_map()
