"""A Trainer's loaders, outside of Lightning's own loops."""

import copy
import gc
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader


def transferred(trainer: Any, batch: Any, validating: bool) -> Any:
    """What a step would receive for a batch of a loader: in precision, on the device, after hooks.

    Monitors take batches of a third party's loader outside of Lightning's loops, but need to see
    what training or, where ``validating``, validation sees. The hooks of a project may ask the
    Trainer which it is.
    """
    was_training = trainer.training
    if validating:
        trainer.validating = True
    try:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch)
    finally:
        if was_training:
            trainer.training = True


def set_up_validation(trainer: pl.Trainer) -> None:
    """Has ``trainer.val_dataloaders`` made now; Lightning makes them for the first validation.

    A monitor of the validation split may be due epochs before that.
    """
    trainer.fit_loop.epoch_loop.val_loop.setup_data()


def separate(loader: Any) -> Any:
    """A copy of a loader that can be drawn from without a trace; None where it cannot be copied.

    Sampler, data set, transforms and their generators are copied as they are now; arrays and
    tensors of at least 1 MiB, which are data, are shared. Streams, open files and locks cannot be
    copied.
    """
    if getattr(loader, "persistent_workers", False):
        # Another pass through them would change what training draws.
        loader = copy.copy(loader)
        loader._iterator = None
    large = {}
    seen, ahead = set(), [loader]
    while ahead:
        one = ahead.pop()
        if id(one) in seen or isinstance(one, (type, ModuleType, FunctionType, str)):
            continue
        seen.add(id(one))
        if isinstance(one, (torch.Tensor, np.ndarray)):
            if one.nbytes >= 2**20:
                large[id(one)] = one
        else:
            ahead += gc.get_referents(one)
    try:
        return copy.deepcopy(loader, large)
    except Exception:  # as many kinds as there are classes that refuse
        return None


class HasWorkers:
    """A loader around torch's, whose workers Lightning sends home at the end of a run.

    Lightning looks for an attribute ``_iterator``. Workers would else stay until Python happens to
    collect the run, and hold it up then.

    Attributes:
        workers: the loader of torch that has the workers.
    """

    workers: DataLoader[Any]

    @property
    def _iterator(self) -> Any:
        return self.workers._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self.workers._iterator = iterator


def reload_every_epoch(trainer: Any) -> Callable[[], None]:
    """Has the loaders made anew for each epoch, as the Trainer's setting of that name would.

    Lightning counts the batches of an epoch, and places validation, as it takes a loader. Epochs
    on a part of the data are shorter.

    Returns:
        What restores the user's setting; several may ask for it, and restore it in any order.
    """
    kept, before = "_reloaded_as_asked", trainer.reload_dataloaders_every_n_epochs
    before = vars(trainer).setdefault(kept, before)
    trainer.reload_dataloaders_every_n_epochs = 1

    def restore() -> None:
        trainer.reload_dataloaders_every_n_epochs = before
        vars(trainer).pop(kept, None)

    return restore
