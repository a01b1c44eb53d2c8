"""Usable information as a metric."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.information import information, information_sums


class UsableInformation(Metric):
    """Usable information I = H(Y) - L_CE about the targets, in bits, over many batches.

    H(Y) is the entropy of the targets of all batches and processes, L_CE the mean cross-entropy;
    see :func:`critical_periods.metrics.functional.usable_information`, also for other likelihoods.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 4.1 and appendix A.5.

    Args:
        num_classes: the number of classes K, or of outputs a sample.
        likelihood: ``categorical``, ``bernoulli`` or ``gaussian``.
        places: how many classes a sample has, such as one a pixel, where logits are [N, K, ...].
        **kwargs: of ``torchmetrics.Metric``.

    Example:
        >>> metric = UsableInformation(num_classes=2)
        >>> metric.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> metric.update(torch.zeros(1, 2), torch.tensor([0]))
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor
    cross_entropy: Tensor

    def __init__(
        self,
        num_classes: int,
        likelihood: Likelihood = "categorical",
        places: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.likelihood: Likelihood = likelihood
        zero = torch.zeros((), dtype=torch.float64)
        shape = (num_classes,) if places is None else (num_classes, places)
        counts = torch.zeros(shape, dtype=torch.int64)
        if likelihood != "categorical":
            # Of zeros and ones; or of the number of samples, their sum and that of their squares.
            rows = 2 if likelihood == "bernoulli" else 3
            counts = torch.zeros(rows, num_classes, dtype=torch.float64)
        self.add_state("counts", counts, dist_reduce_fx="sum")
        self.add_state("cross_entropy", zero, dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch of logits [N, num_classes] and class indices [N], or soft targets.

        With ``places``, they are [N, num_classes, ...] and [N, ...]. Of other likelihoods, outputs
        and targets are [N, num_classes] both; one output may be [N].

        Raises:
            UserError: the shapes do not fit, or a target is not one of the classes.
        """
        counts, cross_entropy = information_sums(logits, target, self.likelihood)
        if counts.shape != self.counts.shape:
            found = f"{counts.shape[-1]} classes but num_classes is {self.num_classes}"
            if {counts.ndim, self.counts.ndim} != {1}:
                found = f"shape {list(logits.shape)}, not that of {list(self.counts.shape)} before"
            raise UserError(f"logits have {found}; make them agree.")
        self.counts = self.counts + counts
        self.cross_entropy = self.cross_entropy + cross_entropy

    def compute(self) -> Tensor:
        """The usable information in bits, a float64 scalar."""
        return information(self.counts, self.cross_entropy, self.likelihood)
