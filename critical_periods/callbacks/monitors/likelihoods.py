"""Whether what a network gives and what data has fit the likelihood that is measured."""

from torch import nn

from critical_periods.core.batch import Batch
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.likelihood import check_outputs, check_target


def check_fit(
    network: nn.Module, batch: Batch, likelihood: Likelihood, target_needed: bool
) -> None:
    """Raises a UserError where the outputs of two samples, or any target, do not fit.

    Where targets are not needed, those that are not known (-1) are left out.
    """
    two = batch.first(2)
    outputs = network(*two.inputs)
    check_outputs(outputs, len(two.index), likelihood)
    target = batch.target
    if not target_needed and target.ndim == 1 and bool((target == -1).any()):
        target = target[target >= 0]
    if len(target):
        check_target(outputs, target, likelihood)
