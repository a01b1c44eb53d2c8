"""How a measurement leaves a network as training had it."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.internals import default_dtype
from critical_periods.core.trainer import trainer_of
from critical_periods.metrics.functional.fisher import evaluating

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def undisturbed(pl_module: pl.LightningModule) -> Iterator[None]:
    """Evaluation mode, no gradients, no autocast, and neither draws nor calls leave a trace."""
    with (
        default_dtype(trainer_of(pl_module)),
        isolate_rng(),
        evaluating(pl_module),
        _silent_forward(pl_module),
        torch.no_grad(),
        # A variance or a gradient norm of bf16 numbers would be mostly rounding.
        torch.autocast(pl_module.device.type, enabled=False),
    ):
        yield


@contextmanager
def _silent_forward(pl_module: pl.LightningModule) -> Iterator[None]:
    """Keeps what a module's own forward logs of samples that are measured out of its log."""

    def silence(*args: Any) -> None:
        for name in ("log", "log_dict"):
            vars(pl_module)[name] = lambda *args, **kwargs: None

    def speak(*args: Any) -> None:
        for name in ("log", "log_dict"):
            vars(pl_module).pop(name, None)

    with (
        pl_module.register_forward_pre_hook(silence),
        pl_module.register_forward_hook(speak, always_call=True),
    ):
        yield


@contextmanager
def reestimated_batch_norm(
    network: nn.Module, batches: Iterable[Batch], average: Callable[[Tensor], Any]
) -> Iterator[None]:
    """Batch-norm statistics of some batches for a while, then training's own again.

    One pass in training mode (of the batch-norm layers alone) averages the statistics of all
    batches with equal weight, as Kleinman et al. did before they evaluated (on clean training
    data before RSV). ``average`` takes a tensor's mean over all processes, which have as many
    batches each.
    """
    found = [part for part in network.modules() if isinstance(part, _BATCH_NORM)]
    layers = [layer for layer in found if layer.track_running_stats]
    saved = [(layer.momentum, copy.deepcopy(dict(layer.named_buffers()))) for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for batch in batches if layers else ():
            network(*batch.inputs)
        for layer in layers:
            layer.eval()
            for name in ("running_mean", "running_var"):
                layer.get_buffer(name).copy_(average(layer.get_buffer(name)))
        yield
    finally:
        for layer, (momentum, buffers) in zip(layers, saved, strict=True):
            layer.momentum = momentum
            layer.load_state_dict(buffers, strict=False)
