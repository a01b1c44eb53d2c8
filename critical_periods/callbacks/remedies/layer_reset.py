"""Layers that begin anew."""

from collections.abc import Sequence

import pytorch_lightning as pl
from torch import Tensor, nn

from critical_periods.callbacks.network import modules_named, name_list, network_of
from critical_periods.callbacks.remedies.remedy import Repeated, forget, parts_to_draw
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project


class LayerReset(Repeated):
    """At ``onset`` some layers get new weights, as torch draws them (``reset_parameters``).

    Statistics of batch norm in them begin anew, too, and optimisers forget what they remember of
    the layers. So Nikishin et al., *The Primacy Bias in Deep Reinforcement Learning* (ICML 2022),
    reset the last layers.

    Args:
        layers: by the names that ``named_modules`` of the network has for them.
        onset: the epoch that begins with it.
        removal: the first epoch that does not any more; of use with a cadence alone.
        every_n_epochs: it does so again every so many epochs; by default once.
        project: which module is the network (:class:`Project`).

    Raises:
        UserError: no layer is named, or see :class:`.Repeated`; before training, the network has no
            such layer, or torch cannot draw it anew.

    Example:
        >>> remedy = LayerReset(["conv1x1", "head"], onset=20)
    """

    def __init__(
        self,
        layers: Sequence[str],
        onset: int = 0,
        removal: int | None = None,
        every_n_epochs: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(onset, removal, every_n_epochs)
        self.layers = name_list("layers", self, layers)
        self.project = project

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the layers."""
        self.parts(pl_module)

    def parts(self, pl_module: pl.LightningModule) -> list[nn.Module]:
        """What is drawn anew, each part once."""
        modules = modules_named("layers", self, self.layers, network_of(pl_module, self.project))
        found: dict[nn.Module, None] = {}
        for name, module in zip(self.layers, modules, strict=True):
            try:
                parts = parts_to_draw(module)
            except UserError as error:
                raise UserError(f"layers of LayerReset names {name!r}, in which {error}") from error
            if not parts:
                raise UserError(f"layers of LayerReset names {name!r}, which has no weights.")
            found |= dict.fromkeys(parts)
        return list(found)

    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws them anew."""
        for place, part in enumerate(self.parts(pl_module)):
            fresh = self.drawn_anew(trainer, part, place)
            for own, new in zip(_own(part), _own(fresh), strict=True):
                own.copy_(new)
                forget(trainer, own)


def _own(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(recurse=False), *part.buffers(recurse=False)]
