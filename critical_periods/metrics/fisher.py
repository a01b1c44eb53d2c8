"""The Fisher trace as a metric."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood
from critical_periods.metrics.copies import Shared
from critical_periods.metrics.functional.fisher import layer_of, squared_score_norms


class FisherTrace(Metric):
    """The trace of the Fisher information, in total and by layer, over many batches.

        Tr F = E_x E_{y ~ p(y|x)} ||∇_w log p(y|x)||²

    in nats² per squared unit of weight, estimated by the mean over samples of
    :func:`critical_periods.metrics.functional.squared_score_norms`, which leaves training as it is.
    The metric does not own the network, lives on its device, and its copies measure the same one.
    In a ``MetricCollection`` of several networks set ``compute_groups=False``.

    Source: Achille, Rovere & Soatto, *Critical Learning Periods in Deep Networks* (ICLR 2019).

    Args:
        network: takes one tensor a view and returns logits [B, K], or what ``likelihood`` is of.
        num_draws: how often signs are drawn a sample; None is the exact expectation.
        seed: of the draws, which restart at every ``reset``; give each process its own.
        chunk_size: samples that are held at once; chosen by memory if None.
        likelihood: ``categorical``, ``bernoulli`` or ``gaussian``.
        **kwargs: of ``torchmetrics.Metric``.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = nn.init.zeros_(network[0].weight)  # p = 1/2: Tr F = |x|² · 1/2
        >>> metric = FisherTrace(network)
        >>> metric.update(torch.tensor([[3.0, 4.0]]))
        >>> metric.update(torch.tensor([[0.0, 0.0]]))
        >>> metric.compute()
        (tensor(6.2500, dtype=torch.float64), {'0': tensor(6.2500, dtype=torch.float64)})
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    norms: Tensor
    squares: Tensor
    samples: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_draws: int | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        likelihood: Likelihood = "categorical",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._network = Shared(network)
        self.num_draws = num_draws
        self.seed = seed
        self.chunk_size = chunk_size
        self.likelihood: Likelihood = likelihood
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.layers = list(dict.fromkeys(map(layer_of, trained)))
        self._keeps_draws = False
        self.generator = torch.Generator().manual_seed(seed)
        zeros = torch.zeros(len(self.layers), dtype=torch.float64)
        self.add_state("norms", zeros, dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.to(next((p.device for p in trained.values()), torch.device("cpu")))

    @property
    def network(self) -> nn.Module:
        """The network that is measured, which copies of this metric share."""
        return self._network.value

    def update(self, *views: Tensor) -> None:
        """Adds a batch, one tensor [B, ...] a view.

        Raises:
            UserError: as :func:`critical_periods.metrics.functional.squared_score_norms`, or the
                network trains other layers than before.
        """
        settings = (self.num_draws, self.generator, self.chunk_size, self.likelihood)
        norms = squared_score_norms(self.network, views, *settings)
        if list(norms) != self.layers:
            raise UserError(
                f"FisherTrace was built for the layers {self.layers}, but now {list(norms)} are "
                "trained; build it anew after layers were frozen or set free."
            )
        self.norms = self.norms + torch.stack([norms[layer].sum() for layer in self.layers])
        self.squares = self.squares + torch.stack([*norms.values()]).sum(0).square().sum()
        self.samples = self.samples + len(views[0])

    def compute(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The trace, a float64 scalar, and the same by layer.

        Sets ``standard_error``, SD / √N of the samples' norms, which the spread of their draws is
        a part of; NaN of one sample.
        """
        traces = self.norms / self.samples
        total = traces.sum()
        variance = (self.squares - self.samples * total.square()).clamp(min=0)
        self.standard_error = (variance / (self.samples - 1) / self.samples).sqrt()
        return total, dict(zip(self.layers, traces, strict=True))

    def forward(self, *views: Tensor) -> Any:
        """Adds a batch and returns the trace of that batch alone."""
        # Metric.forward calls reset, which must not give every batch the same draws.
        self._keeps_draws = True
        try:
            return super().forward(*views)
        finally:
            self._keeps_draws = False

    def reset(self) -> None:
        """Forgets all samples and restarts the draws."""
        super().reset()
        if not self._keeps_draws:
            self.generator.manual_seed(self.seed)
