"""The weights that a run starts from, for what compares later ones with them."""

import os
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.nn.parameter import is_lazy

from critical_periods.core.errors import UserError


class InitialWeights:
    """Takes a module's parameters before any checkpoint is loaded, and keeps them in checkpoints.

    A checkpoint that does not have them, such as that of a study's trunk, is of a run with the same
    seed, whose initialisation is this one.

    Args:
        owner: the callback that needs them.
    """

    def __init__(self, owner: pl.Callback) -> None:
        self._owner = type(owner).__name__
        self._weights: dict[str, Tensor] = {}
        self._are_kept = False

    def take(self, pl_module: pl.LightningModule) -> None:
        """To be called in ``setup``, which comes before checkpoints."""
        self._are_kept = False
        named = _parameters(pl_module).items()
        self._weights = {
            name: one.detach().cpu().clone() for name, one in named if not is_lazy(one)
        }

    def state_dict(self) -> dict[str, Any]:
        """The weights, by name."""
        return {"initial_weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Those of the run that goes on."""
        self._weights, self._are_kept = dict(state["initial_weights"]), True

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """To be called in ``on_fit_start``.

        Raises:
            UserError: some weights were not there yet, or the run goes on from a checkpoint without
                them and nothing was seeded.
        """
        self.of(pl_module)
        goes_on = getattr(trainer, "ckpt_path", None) is not None
        if goes_on and not self._are_kept and "PL_GLOBAL_SEED" not in os.environ:
            raise UserError(
                f"{self._owner} needs the weights that training started from, but "
                f"{trainer.ckpt_path} lacks them and nothing was seeded; seed the run as before "
                f"(seed_everything), or train its beginning with {self._owner}, too."
            )

    def of(self, pl_module: pl.LightningModule) -> list[tuple[Tensor, Tensor]]:
        """Each parameter of the module with what it was at the start, on its device."""
        named = _parameters(pl_module)
        for name in named.keys() - self._weights.keys():
            raise UserError(
                f"{self._owner} needs the weights that training starts from, but {name!r} is only "
                "made later (in configure_model, or by a first batch); make it in __init__."
            )
        # Where the module is, they stay.
        self._weights = {n: start.to(named[n].device) for n, start in self._weights.items()}
        return [(one, self._weights[name]) for name, one in named.items()]


def _parameters(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    # A network may be compiled on the way.
    return {n.replace("_orig_mod.", ""): one for n, one in pl_module.named_parameters()}
