"""Relative source variance as a metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from critical_periods.core.errors import UserError
from critical_periods.metrics.copies import Shared
from critical_periods.metrics.functional.rsv import (
    relative_source_variance,
    shifted_sums,
    variance_above_noise,
)

Function = Callable[..., Tensor | Mapping[str, Tensor]]


class RelativeSourceVariance(Metric):
    """Relative source variance of each unit at each fixed sample, over many batches of draws.

        RSV = (SV_0 - SV_1) / (SV_0 + SV_1)    or, of more views,    SV_v / Σ_u SV_u,

    where SV_v is the variance of the unit over all draws of view v, with the other views those of
    the fixed sample. **+1 is a unit that varies with view 0 alone**, -1 one that varies with view 1
    alone; NaN one that varies with none, a dead unit. See
    :func:`critical_periods.metrics.functional.relative_source_variance`.

    Processes share the fixed samples, and each adds its own draws; the result is that of one
    process with all draws. Sums are float64, of representations minus those of the fixed samples,
    which are computed here and again at every ``reset``: reset when the weights change.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 3 and appendix A.2.

    Args:
        function: takes one tensor a view, [B, ...] each, and returns a representation [B, *units],
            or several of one forward pass as a dict from names to representations. The samples of
            a batch must not affect each other (batch norm in evaluation mode).
        fixed: the K fixed samples, one tensor [K, ...] a view.
        batch_size: roughly the largest batch that the function is given.
        **kwargs: of ``torchmetrics.Metric``.

    Raises:
        UserError: there are fewer than two views, or their numbers of fixed samples differ.

    Example:
        >>> fixed = [torch.tensor([[0.0]]), torch.tensor([[0.0]])]
        >>> rsv = RelativeSourceVariance(lambda a, b: torch.cat([a, 2 * a + b, b], 1), fixed)
        >>> rsv.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]))
        >>> rsv.compute()  # (4 - 1) / (4 + 1) in the middle
        tensor([[ 1.0000,  0.6000, -1.0000]], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    reference: Tensor
    sums: Tensor
    draws: Tensor

    def __init__(
        self, function: Function, fixed: Sequence[Tensor], batch_size: int = 512, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        sizes = [len(samples) for samples in fixed]
        if len(sizes) < 2 or len(set(sizes)) > 1:
            raise UserError(
                f"fixed has {sizes} samples in its views; give two views or more of equally many."
            )
        self._function = Shared(function)
        self.batch_size = batch_size
        self.num_views = len(fixed)
        for view, samples in enumerate(fixed):
            self.register_buffer(f"fixed_{view}", samples, persistent=False)

        with torch.no_grad():
            output = function(*(samples[:1] for samples in fixed))
        self._named = isinstance(output, Mapping)
        representations = output if isinstance(output, Mapping) else {"": output}
        self._shapes = {name: tuple(r.shape[1:]) for name, r in representations.items()}
        self._eps = {name: torch.finfo(r.dtype).eps for name, r in representations.items()}
        self.register_buffer("reference", self._reference(), persistent=False)
        sums = torch.zeros(2, self.num_views, *self.reference.shape, dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("draws", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.to(fixed[0].device)

    @property
    def function(self) -> Function:
        """The function that is measured, which copies of this metric share."""
        return self._function.value

    @property
    def fixed(self) -> list[Tensor]:
        """The fixed samples, one tensor [K, ...] a view."""
        return [getattr(self, f"fixed_{view}") for view in range(self.num_views)]

    def update(self, *views: Tensor) -> None:
        """Adds draws of each view from its marginal, one tensor [B, ...] a view.

        Raises:
            UserError: there is another number of views, or their numbers of draws differ.
        """
        sizes = [len(view) for view in views]
        if len(sizes) != self.num_views or len(set(sizes)) > 1 or sizes[0] == 0:
            raise UserError(
                f"update got {sizes} draws in its views; "
                f"give {self.num_views} views of equally many, at least one."
            )
        sums = [
            shifted_sums(self._flat, self.fixed, pool, view, self.reference, self.batch_size)
            for view, pool in enumerate(views)
        ]
        self.sums = self.sums + torch.stack(sums, 1)
        self.draws = self.draws + sizes[0]

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The RSVs, or a dict of them if the function returns one.

        Returns:
            Float64 [K, *units] for two views, [V, K, *units] for more.
        """
        sizes = [torch.Size(shape).numel() for shape in self._shapes.values()]
        blocks = zip(self.sums.split(sizes, -1), self.reference.split(sizes, -1), strict=True)
        results = {}
        for (name, shape), (sums, reference) in zip(self._shapes.items(), blocks, strict=True):
            variances = [
                variance_above_noise(sums[:, view], self.draws, reference, self._eps[name])
                for view in range(self.num_views)
            ]
            rsv = relative_source_variance(torch.stack(variances))
            results[name] = rsv.reshape(*rsv.shape[:-1], *shape)
        return results if self._named else results[""]

    def reset(self) -> None:
        """Forgets all draws and computes the representations of the fixed samples anew."""
        super().reset()
        self.reference = self._reference()

    def _flat(self, *views: Tensor) -> Tensor:
        """All representations side by side, [B, units of all]."""
        output = self.function(*views)
        representations = output.values() if isinstance(output, Mapping) else [output]
        return torch.cat([r.reshape(len(r), -1) for r in representations], 1)

    @torch.no_grad()
    def _reference(self) -> Tensor:
        chunks = zip(*(samples.split(self.batch_size) for samples in self.fixed), strict=True)
        return torch.cat([self._flat(*chunk).double() for chunk in chunks])
