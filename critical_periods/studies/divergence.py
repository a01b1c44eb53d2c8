"""Runs that diverge: where their loss or their weights stop being finite, they have failed."""

import math
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.core.errors import UserError
from critical_periods.core.files import write_text
from critical_periods.studies.folder import SegmentFolder, StudyFolder
from critical_periods.studies.plan import Plan


def lost(measured: Mapping[str, Any]) -> str | None:
    """The first logged loss that is not finite: a key with the word ``loss`` in it.

    Example:
        >>> lost({"val/accuracy": "nan", "train/loss": "0.5", "val_loss": "nan"})
        'val_loss'
    """
    losses = filter(_is_loss, measured)
    return next((key for key in losses if not math.isfinite(float(measured[key] or 0))), None)


@cache
def _is_loss(key: str) -> bool:
    return "loss" in re.split(r"[^a-z]+", key.lower())


def diverged_in(study: StudyFolder, plan: Plan, name: str) -> int | None:
    """The epoch in which the run up to a segment's end has diverged; ``None`` where it has not.

    Folders of earlier versions hold such runs as done.
    """
    segment = study.segment(name)
    if segment.is_done():
        return _outcome(segment)[1]
    epochs = (study.segment(one.name).diverged_in() for one in plan.lineage(name))
    return next((epoch for epoch in epochs if epoch is not None), None)


def logged(segment: SegmentFolder) -> tuple[str, ...]:
    """The keys that the run up to the end of a segment that is done has logged."""
    return _outcome(segment)[0]


def _outcome(segment: SegmentFolder) -> tuple[tuple[str, ...], int | None]:
    found = segment.metrics.stat()
    return _read_outcome(segment.path, found.st_size, found.st_mtime_ns)


@lru_cache(1 << 16)
def _read_outcome(path: Path, size: int, time: int) -> tuple[tuple[str, ...], int | None]:
    """What each table asks of each history, read once as long as that stays as it is."""
    history = SegmentFolder(path).history()
    return (*history[0],), next((int(epoch["epoch"]) for epoch in history if lost(epoch)), None)


class DivergenceCheck(pl.Callback):
    """Ends a segment in the epoch in which a loss or a weight is no longer finite.

    It comes before the other callbacks, so that what monitors say of such a network is not what
    its user gets to read, and no checkpoint of it is written.

    Args:
        folder: of the segment.
        origin: where its weights are from, as messages call it.

    Raises:
        UserError: the segment starts from weights that are not finite, or it diverges.
    """

    def __init__(self, folder: SegmentFolder, origin: str) -> None:
        self.folder, self.origin = folder, origin
        self._total: torch.Tensor | float = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuses weights that were lost before."""
        if name := _lost_weight(pl_module):
            raise UserError(f"{name} is not finite in {self.origin}, which this starts from.")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins a sum of the epoch's losses."""
        self._total = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        number: int,
    ) -> None:
        """Adds a step's loss, where it is known, without waiting for the device."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            self._total = self._total + loss.detach().float()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at the logged losses, the sum of the steps' losses and the weights."""
        what = lost(trainer.callback_metrics)
        if what is None and not math.isfinite(float(self._total)):
            what = "the loss of training"
        what = what or _lost_weight(pl_module)
        # One process may have met it in its own samples.
        if not trainer.strategy.reduce_boolean_decision(what is not None, all=False):
            return
        epoch = trainer.current_epoch
        if trainer.is_global_zero:
            write_text(self.folder.diverged, str(epoch))
        raise UserError(
            f"the run diverged in epoch {epoch}, where {what or 'the loss of training'} is no "
            "longer finite; lower the learning rate, or clip gradients "
            "(trainer.gradient_clip_val)."
        )


def _lost_weight(module: pl.LightningModule) -> str | None:
    """The name of a parameter that is not finite; one look at the device for all of them."""
    named = [(n, p.detach()) for n, p in module.named_parameters() if p.is_floating_point()]
    if not named:
        return None
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named]).tolist()
    return next(
        (f"the weight {n}" for (n, _), one in zip(named, finite, strict=True) if not one), None
    )
