"""Batches of a third party's training or validation, kept as they go by, to measure on later."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.trees import mapped, tensors_in

# As much of a split as is kept where no number of samples is asked for, in bytes.
_MOST = 2**28
_KEY = "critical_periods_kept_batches"
_STATE = ("samples", "wanted", "epoch", "is_complete")


class KeptBatches:
    """Batches of one split in main memory, with all of their tensors, for all monitors of a run.

    They are what the step receives where no deficit is open: after the hooks of their transfer
    (mixup in ``on_after_batch_transfer`` included), before a ``DeficitWindow``. Each process keeps
    its own.

    Attributes:
        batches: copies: tensors without their subclass, in dicts and lists.
        samples: how many samples they have.
        wanted: how many there are to be, over all processes together.
        epoch: whose they are.
        is_complete: whether no more are kept.
    """

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.samples = 0
        self.wanted = 0.0
        self.epoch = 0
        self.is_complete = False
        self._of_all: list[list[Any]] | None = None

    def add(self, trainer: pl.Trainer, batch: Any, samples: int, share: float) -> None:
        """Keeps a batch of so many samples, unless this process has its share."""
        if not self.batches:
            self.epoch = trainer.current_epoch
        if self.epoch != trainer.current_epoch:
            self.complete(trainer)  # the epoch of a checkpoint ended with it
        elif self.samples < share:
            self.batches.append(mapped(batch, _copied))
            self.samples += samples

    def complete(self, trainer: pl.Trainer) -> None:
        """Keeps no more, once there is a batch; every process has to call it."""
        if self.is_complete or not self.batches:
            return
        self.is_complete = True
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.batches)
            self._of_all = parts if trainer.is_global_zero else None
        elif self.samples < self.wanted < math.inf:
            rank_zero_warn(
                f"monitors of the split 'train' measure the {self.samples} samples that an epoch "
                f"of training has given, not samples={self.wanted:.0f}."
            )

    def state(self, trainer: pl.Trainer) -> dict[str, Any] | None:
        """What goes into a checkpoint, tensors in plain containers; None where there is none."""
        of_all = [self.batches] if trainer.world_size == 1 else self._of_all
        if not of_all or not of_all[0]:
            return None
        is_ours = isinstance(of_all[0][0], Batch)
        parts = [[tuple(one) if is_ours else one for one in part] for part in of_all]
        return {"parts": parts, "is_ours": is_ours} | {name: getattr(self, name) for name in _STATE}

    def load(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Goes on with those of a checkpoint; anew where that had other processes."""
        if len(state["parts"]) != trainer.world_size:
            return
        found = state["parts"][trainer.global_rank]
        self.batches = [Batch(*one) for one in found] if state["is_ours"] else found
        for name in _STATE:
            setattr(self, name, state[name])
        # Another checkpoint may be written before the next epoch ends.
        self._of_all = state["parts"] if trainer.world_size > 1 else None


def kept_batches(trainer: Any) -> dict[str, KeptBatches]:
    """What is kept in a run, by its split."""
    return vars(trainer).setdefault(_KEY, {})


def save(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Puts the training batches into a checkpoint, once for all monitors."""
    kept = kept_batches(trainer).get("train")
    if kept is not None and _KEY not in checkpoint:
        state = kept.state(trainer)
        if state is not None:
            checkpoint[_KEY] = state


def load(trainer: pl.Trainer, checkpoint: dict[str, Any], wanted: float) -> None:
    """Takes them from a checkpoint, where it has as many as the monitors of this run want."""
    state = checkpoint.get(_KEY)
    if state is not None and state["wanted"] >= wanted > 0:
        kept_batches(trainer).setdefault("train", KeptBatches()).load(trainer, state)


def check_size(trainer: pl.Trainer, split: str, batch: Any, owner: object, setting: str) -> None:
    """Raises a UserError where all batches like this one are too many to keep."""
    limits = trainer.num_val_batches if split == "val" else [trainer.num_training_batches]
    number = float(limits[0]) * trainer.world_size
    size = sum(tensor.nbytes for tensor in tensors_in(batch)) * number
    if size <= _MOST:
        return
    value = getattr(owner, setting)
    often = f"{number:.0f} batches, {size / 2**20:.0f} MiB" if number < math.inf else "no end"
    raise UserError(
        f"{setting}={value} of {type(owner).__name__} would keep every batch of the split "
        f"{split!r} in memory and in checkpoints, as they can be had only when training takes "
        f"them, and there are {often}, where at most {_MOST / 2**20:.0f} MiB are kept; "
        f"{'set it to false' if value is True else 'set a number of samples'}."
    )


def _copied(tensor: Tensor) -> Tensor:
    # Validation gives tensors of inference mode, which no gradient goes through.
    with torch.inference_mode(False), torch.no_grad():
        return tensor.to("cpu", copy=True)
