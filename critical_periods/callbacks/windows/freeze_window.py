"""A part of the network that does not learn for a while."""

from collections.abc import Sequence
from itertools import chain

import pytorch_lightning as pl
import torch
from torch import nn

from critical_periods.callbacks.network import modules_named, name_list, network_of
from critical_periods.callbacks.windows.window import Window
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.core.trainer import Unit


class FreezeWindow(Window):
    """From ``onset`` to ``removal - 1``, the parameters of some modules stay as they are.

    Their output counts as before, and gradients flow through them to what comes before, but no
    optimiser sees a gradient of theirs: not a bit of them changes, whatever momentum or weight
    decay would have done, and what the optimiser remembers of them waits for the removal, too.
    Buffers, such as the statistics of batch norm, go on. In Kleinman, Achille & Soatto (ICLR 2024,
    arXiv 2308.12221) the deficit freezes one of two paths while the other learns. It logs
    ``deficit/active`` as other deficits do.

    Args:
        modules: by the names that ``named_modules`` of the network has for them: the module's
            attribute ``network`` or, in a project without one, the module itself.
        onset: the first epoch (or step) in which they are frozen.
        removal: the first one in which they learn again; ``None`` means to the end.
        unit: ``epoch`` or ``step``: what both are counted in.
        project: which module is the network (:class:`Project`).

    Raises:
        UserError: no module is named; before training, the network has no such module or no
            parameter in it.

    Example:
        >>> window = FreezeWindow(["paths.1"], onset=400, removal=550)
        >>> [window.is_open(epoch) for epoch in (399, 400, 549, 550)]
        [False, True, True, False]
    """

    def __init__(
        self,
        modules: Sequence[str],
        onset: int = 0,
        removal: int | None = None,
        unit: Unit = "epoch",
        project: Project | None = None,
    ) -> None:
        super().__init__(onset, removal, unit)
        self.project = project
        self.modules = name_list("modules", self, modules)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the modules."""
        self.parameters(pl_module)

    def parameters(self, pl_module: pl.LightningModule) -> list[nn.Parameter]:
        """What the window freezes."""
        modules = modules_named("modules", self, self.modules, network_of(pl_module, self.project))
        inside = [list(module.parameters()) for module in modules]
        if [] in inside:
            name = self.modules[inside.index([])]
            raise UserError(
                f"modules of FreezeWindow names {name!r}, which has no parameters to freeze."
            )
        return list(chain(*inside))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Hides the gradients from the optimiser, which leaves what has none alone."""
        # Not by requires_grad: DDP looks at that when it is made, and never again.
        if self.acts:
            for parameter in self.parameters(pl_module):
                parameter.grad = None
