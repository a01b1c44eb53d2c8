"""Whether what a network gives and what data has fit the likelihood that is measured."""

from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.likelihood import check_outputs, check_target


def check_fit(
    network: nn.Module, batch: Batch, target: Tensor, likelihood: Likelihood, target_needed: bool
) -> None:
    """Raises a UserError where the outputs for a batch, or targets, do not fit.

    Where targets are not needed, those that are not known (-1) are left out.
    """
    outputs = network(*batch.inputs)
    check_outputs(outputs, len(batch.index), likelihood)
    if not target_needed and target.ndim == 1 and bool((target == -1).any()):
        target = target[target >= 0]
    if len(target):
        check_target(outputs, target, likelihood)
