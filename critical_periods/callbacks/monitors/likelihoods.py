"""Whether what a network gives and what data has fit the likelihood that is measured."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood
from critical_periods.core.trainer import datamodule_of, trainer_of
from critical_periods.metrics.functional.likelihood import (
    check_outputs,
    check_places,
    check_target,
)
from critical_periods.tasks.task import Task

# Steps that change no number, or only those near 0 and 1.
_SHAPES = ("Alias", "Clamp", "Clone", "Permute", "Reshape", "Select", "Slice", "Squeeze")
_OTHER_SHAPES = ("TBackward", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View")


def known_classes(pl_module: pl.LightningModule, network: nn.Module) -> dict[str, int]:
    """How many classes a third party's module, data or network says there are, and where."""
    trainer = trainer_of(pl_module)
    data = None if trainer is None else datamodule_of(trainer)
    if isinstance(pl_module, Task) or hasattr(data, "measurement_loader"):
        return {}
    found = {}
    for owner in (pl_module, data, network):
        # Some keep their settings as a namespace.
        hparams = getattr(owner, "hparams", {})
        held = hparams if isinstance(hparams, Mapping) else getattr(hparams, "__dict__", {})
        held = {**held, **getattr(owner, "__dict__", {})}
        for name in ("num_classes", "n_classes"):
            if type(held.get(name)) is int:
                found[f"{name}={held[name]} of {type(owner).__name__}"] = held[name]
    return found


def check_fit(
    network: nn.Module,
    batch: Batch,
    target: Tensor,
    likelihood: Likelihood,
    target_needed: bool,
    known: dict[str, int] | None = None,
) -> None:
    """Raises a UserError where the outputs for a batch, or targets, do not fit.

    Where targets are not needed, those that are not known (-1, or torch's -100) are left out, and
    so are places in a data set: whole numbers that are all different and far beyond the classes.
    Of outputs [B, K, ...] there has to be a class at each place, be it known or not. Outputs of
    more classes than all that are ``known``, by where that is said, and one for the background,
    are taken for features.
    """
    with torch.enable_grad():
        outputs = network(*batch.inputs)
    check_outputs(outputs, len(batch.index), likelihood)
    step, inverse = _last_step(outputs), {"Sigmoid": "logit", "Softmax": "log"}
    if likelihood != "gaussian" and step in inverse:
        raise UserError(
            f"network returned probabilities, as its last step is a {step.lower()}, but the "
            f"likelihood {likelihood!r} is of logits; say how they become logits, such as "
            f"Project(logits=torch.{inverse[step]})."
        )
    outputs = outputs.detach()
    width = outputs.shape[1] if likelihood == "categorical" else 0
    if known and width > max(known.values()) + 1:
        raise UserError(
            f"network returned shape {list(outputs.shape)}, but {next(iter(known))}, so that these "
            "may be features and no logits; name the module or the function that gives logits, "
            "such as Project(network='model')."
        )
    if not len(target):
        return
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


def check_one_class(owner: object, batch: Batch) -> None:
    """Raises a UserError where a monitor counts classes, and targets are probabilities of them."""
    if batch.target.ndim != 1:
        raise UserError(
            f"{type(owner).__name__} needs one class a sample, but targets have shape "
            f"{list(batch.target.shape)}; choose a split without mixed labels, or leave it out."
        )


def _last_step(outputs: Tensor) -> str:
    """The last step but for changes of shape, such as Sigmoid, by the graph of gradients."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(_SHAPES + _OTHER_SHAPES):
        node = node.next_functions[0][0]
    return "" if node is None else node.name().partition("Backward")[0]
