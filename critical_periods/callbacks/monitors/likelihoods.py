"""Whether what a network gives and what data has fit the likelihood that is measured."""

import torch
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.likelihood import (
    check_outputs,
    check_places,
    check_target,
)

# Steps that change no number.
_SHAPES = ("Alias", "Clone", "Permute", "Reshape", "Select", "Slice", "Squeeze", "TBackward")
_OTHER_SHAPES = ("ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View")


def check_fit(
    network: nn.Module, batch: Batch, target: Tensor, likelihood: Likelihood, target_needed: bool
) -> None:
    """Raises a UserError where the outputs for a batch, or targets, do not fit.

    Where targets are not needed, those that are not known (-1, or torch's -100) are left out, and
    so are places in a data set: whole numbers that are all different and far beyond the classes.
    Of outputs [B, K, ...] there has to be a class at each place, be it known or not.
    """
    with torch.enable_grad():
        outputs = network(*batch.inputs)
    check_outputs(outputs, len(batch.index), likelihood)
    if likelihood == "bernoulli" and _is_sigmoid(outputs):
        raise UserError(
            "network returned probabilities, as its last step is a sigmoid, but the likelihood "
            "'bernoulli' is of logits; say how they become logits, such as "
            "Project(logits=torch.logit)."
        )
    outputs = outputs.detach()
    if not target_needed and likelihood == "categorical" and outputs.ndim > 2:
        check_places(outputs, target)
        return
    if not target_needed and target.ndim == 1 and not target.is_floating_point():
        target = target[target >= 0]
        is_far = bool((target >= 2 * outputs[0].numel()).any())
        if is_far and len(target) == len(target.unique()):
            return
    if len(target):
        check_target(outputs, target, likelihood)


def _is_sigmoid(outputs: Tensor) -> bool:
    """Whether the last step but for changes of shape was a sigmoid, by the graph of gradients."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(_SHAPES + _OTHER_SHAPES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("Sigmoid")
