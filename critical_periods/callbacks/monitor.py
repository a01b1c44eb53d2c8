"""What all monitors share: when they measure, on what, and that training does not notice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from critical_periods.batch import Batch
from critical_periods.callbacks.samples import look_for_split
from critical_periods.errors import UserError, near
from critical_periods.metrics.functional.fisher import evaluating
from critical_periods.models.heads import answering_together


class Monitor(pl.Callback):
    """A callback that measures the network at the end of some epochs and logs what it finds.

    It measures the module's attribute ``network``, or, in a project without one, the module
    itself: whatever takes one tensor [B, C, H, W] a view. Modes, gradients, buffers, autocast and
    random state of the training are as they were before.

    Args:
        every_n_epochs: the cadence; the last epoch (by ``max_epochs``, by ``max_steps``, or as a
            validation has stopped the training) is always measured, and by default it alone.
        split: which samples: ``train`` (clean where the DataModule is one of this package),
            ``val`` or ``test``.
        samples: how many of them, over all processes; all by default.

    Raises:
        UserError: the cadence or the number of samples is less than 1; before training, there are
            fewer samples than processes, or there is no data loader of the split.
    """

    def __init__(
        self, every_n_epochs: int | None = None, split: str = "val", samples: int | None = None
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("samples", samples)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} of {type(self).__name__} must be at least 1.")
        if split not in ("train", "val", "test"):
            raise UserError(
                f"split={split!r} of {type(self).__name__} is unknown; "
                f"{near(split, ['train', 'val', 'test'])}"
            )
        self.every_n_epochs = every_n_epochs
        self.split = split
        self.samples = samples

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares the number of samples with that of the processes, which each take a share."""
        if self.samples is not None and self.samples < trainer.world_size:
            raise UserError(
                f"samples={self.samples} of {type(self).__name__} cannot be shared by "
                f"{trainer.world_size} processes; choose at least {trainer.world_size}."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks for the samples, which may be due only hours later."""
        look_for_split(trainer, self.split)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures where the cadence asks for it."""
        done = trainer.current_epoch + 1
        due = self.every_n_epochs is not None and done % self.every_n_epochs == 0
        # Training also ends by its steps, or where something like EarlyStopping asks for it.
        is_last = (
            done == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
            or trainer.should_stop
        )
        if due or is_last:
            with undisturbed(pl_module), answering_together(network_of(pl_module)):
                self.measure(trainer, pl_module)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs; called in evaluation mode and without gradients."""
        raise NotImplementedError


def log_scalar(pl_module: pl.LightningModule, key: str, value: torch.Tensor) -> None:
    """Logs a number that all processes have computed alike."""
    pl_module.log(key, value.to(torch.float32), sync_dist=True)


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The module's attribute ``network``, or the module itself."""
    network = getattr(pl_module, "network", None)
    return network if isinstance(network, nn.Module) else pl_module


@contextmanager
def undisturbed(pl_module: pl.LightningModule) -> Iterator[None]:
    """Evaluation mode, no gradients, no autocast, and random draws that leave no trace."""
    with (
        isolate_rng(),
        evaluating(pl_module),
        torch.no_grad(),
        # A variance or a gradient norm of bf16 numbers would be mostly rounding.
        torch.autocast(pl_module.device.type, enabled=False),
    ):
        yield


@contextmanager
def reestimated_batch_norm(network: nn.Module, batches: Iterable[Batch]) -> Iterator[None]:
    """Batch-norm statistics of some batches for a while, then training's own again.

    One pass in training mode (of the batch-norm layers alone) averages the statistics of all
    batches with equal weight, as Kleinman et al. did before they evaluated (on clean training
    data before RSV).
    """
    layers = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    layers = [layer for layer in layers if layer.track_running_stats]
    saved = [
        (layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()})
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for batch in batches if layers else ():
            network(*batch.views.unbind(1))
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer, (momentum, buffers) in zip(layers, saved, strict=True):
            layer.momentum = momentum
            for name, buffer in buffers.items():
                getattr(layer, name).copy_(buffer)
