"""The monitor of mode strengths in the paths of a deep linear network, measured and in theory."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.network import network_of
from critical_periods.callbacks.windows.freeze_window import FreezeWindow
from critical_periods.callbacks.windows.window import windows
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.linear.multi_path_linear import MultiPathLinear, paths_and_task
from critical_periods.linear.theory.multi_path import Freeze, layer_strength, path_strengths


class ModeMonitor(Monitor):
    """Logs the strength of each mode of a task in each path, measured and by theory.

    ``modes/path_0/0``, … are the strengths K_pk = u_k^T W_p v_k in the singular basis of the task,
    ``modes/ode/path_0/0``, … those of gradient flow in balanced layers from the same start
    (:func:`~critical_periods.linear.path_strengths`), with path p frozen where a ``FreezeWindow``
    freezes it. ``modes/share`` is the mean over modes of K_0k / Σ_p K_pk, the share of path 0: ½
    for two equal paths. The theory is that of full-batch gradient descent at the optimiser's
    learning rate, one step an epoch.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221).

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.

    Raises:
        UserError: the cadence is less than 1; before training, the network is no
            ``MultiPathLinear``, or the data no ``HierarchyDataModule``.

    Example:
        >>> monitor = ModeMonitor(every_n_epochs=20)
    """

    def __init__(self, every_n_epochs: int | None = 10) -> None:
        super().__init__(every_n_epochs)
        self._epoch = 0
        self._theory: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The epoch that the theory has reached, and its strengths at the start of that epoch."""
        return {"epoch": self._epoch, "theory": self._theory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the theory of the checkpoint."""
        self._epoch, self._theory = state_dict["epoch"], state_dict["theory"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the network has paths and the data a task with modes."""
        super().setup(trainer, pl_module, stage)
        _paths_and_task(trainer, pl_module)
        self._epoch, self._theory = 0, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the theory from the measured strengths, unless a checkpoint has."""
        for window in windows(trainer, FreezeWindow):
            if window.unit == "step":
                raise UserError(
                    f"ModeMonitor's theory goes by epochs, but the window of {window.described} "
                    "counts steps; give it in epochs."
                )
        if self._theory is None:
            self._epoch, self._theory = trainer.current_epoch, _strengths(trainer, pl_module)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the strengths, measured and by theory."""
        strengths = _strengths(trainer, pl_module)
        theory = self._advance(trainer, pl_module)
        for name, table in (("modes", strengths), ("modes/ode", theory)):
            for path, modes in enumerate(table):
                for mode, value in enumerate(modes):
                    log_scalar(pl_module, f"{name}/path_{path}/{mode}", value)
        log_scalar(pl_module, "modes/share", (strengths[0] / strengths.sum(0)).mean())

    def _advance(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
        """Integrates the theory to the end of this epoch."""
        (network, task), began = _paths_and_task(trainer, pl_module), self._epoch
        done = trainer.current_epoch + 1
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        freezes = []
        for window in windows(trainer, FreezeWindow):
            frozen = {id(one) for one in window.parameters(pl_module)}
            last = done if window.removal is None else window.removal
            freezes += [
                Freeze(number, rate * (window.onset - began), rate * (last - began))
                for number, path in enumerate(network.paths)
                if frozen.issuperset(map(id, path.parameters()))
            ]
        assert self._theory is not None
        _, targets, _ = torch.linalg.svd(task.double(), full_matrices=False)
        start = layer_strength(self._theory.numpy(), network.depth)
        found = path_strengths(rate * (done - began), targets, start, network.depth, freezes)
        self._epoch, self._theory = done, torch.from_numpy(found[-1].copy())
        return self._theory


def _paths_and_task(
    trainer: pl.Trainer, pl_module: pl.LightningModule
) -> tuple[MultiPathLinear, Tensor]:
    return paths_and_task("ModeMonitor", network_of(pl_module), datamodule_of(trainer))


@torch.no_grad()
def _strengths(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
    network, task = _paths_and_task(trainer, pl_module)
    return network.mode_strengths(task.double()).cpu()
