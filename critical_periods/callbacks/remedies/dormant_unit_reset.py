"""Dormant units that begin anew (ReDo)."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.monitors.undisturbed import undisturbed
from critical_periods.callbacks.network import check_call, modules_named, name_list, network_of
from critical_periods.callbacks.remedies.links import Link, links, passed
from critical_periods.callbacks.remedies.remedy import Repeated, forget
from critical_periods.callbacks.samples import example_batch
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, near
from critical_periods.core.finding import find
from critical_periods.core.project import Project
from critical_periods.metrics.functional.plasticity import dormant


class DormantUnitReset(Repeated):
    """Units that hardly answer to anything get new weights into them, and none out of them (ReDo).

    A unit i (of a linear layer, or a channel) is dormant where E|h_i| ≤ τ · mean over k of E|h_k|
    (:func:`.dormant`), over the first batch of the epoch, h being what the next layer takes of it.
    Its incoming weights are drawn as those of a new layer are, batch norm in between begins anew
    for it, its outgoing weights become 0, and optimisers forget what they remember of these.
    Source: Sokar et al., *The Dormant Neuron Phenomenon in Deep Reinforcement Learning* (ICML
    2023).

    Only layers whose units nothing but one next layer takes are reset (:func:`.links`), not those
    beside a shortcut.

    Args:
        threshold: τ.
        layers: names of linear and convolutional modules as ``named_modules`` of the network has
            them; by default all that can be reset.
        onset: the first epoch that begins with it.
        removal: the first one that does not any more; ``None`` means to the end.
        every_n_epochs: how often; by default once.
        project: where inputs and network are in a third party's project (:class:`Project`).

    Raises:
        UserError: the threshold is negative, or see :class:`.Repeated`; before training, the
            network has no such layer, or its units cannot be reset.

    Example:
        >>> remedy = DormantUnitReset(threshold=0.1, onset=20, every_n_epochs=5)
    """

    def __init__(
        self,
        threshold: float = 0.1,
        layers: Sequence[str] | None = None,
        onset: int = 0,
        removal: int | None = None,
        every_n_epochs: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(onset, removal, every_n_epochs)
        if threshold < 0:
            raise UserError(f"{threshold=} of DormantUnitReset must not be negative.")
        self.threshold = threshold
        self.layers = None if layers is None else name_list("layers", self, layers)
        self.project = project
        self._links: dict[str, Link] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the layers."""
        self._links = None
        modules_named("layers", self, self.layers or (), network_of(pl_module, self.project))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the links before training, where there are samples to look at."""
        example = example_batch(trainer, project=self.project)
        if example is not None:
            self.check(pl_module, example)
        super().on_train_start(trainer, pl_module)

    def check(self, pl_module: pl.LightningModule, example: Batch) -> None:
        """Finds the links; a UserError where a layer is none."""
        network, inputs = network_of(pl_module, self.project), example.first(2).inputs
        check_call(network, inputs)
        with undisturbed(pl_module):
            found = links(network, inputs)
        for name in self.layers or ():
            if name not in found:
                raise UserError(
                    f"layers of DormantUnitReset names {name!r}, whose units are not taken by one "
                    f"next layer alone; {near(name, found)}"
                )
        if not found:
            raise UserError(
                f"DormantUnitReset finds no layer of {type(network).__name__} whose units one next "
                "layer alone takes; leave it out."
            )
        self._links = {
            n: one for n, one in found.items() if self.layers is None or n in self.layers
        }

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Waits for the first batch of the epoch."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Resets where it is due; looks at a third party's first batch before any step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        is_due = self._takes_its_turn(trainer.current_epoch)
        if not is_due and self._links is not None:
            return
        found, _ = find(batch, project=self.project)
        if self._links is None:
            self.check(pl_module, found)
        if is_due:
            self._reset(trainer, pl_module, found)

    def _reset(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch) -> None:
        network, chosen = network_of(pl_module, self.project), [*(self._links or {}).values()]
        dormant_units: list[Tensor] = []
        # All are looked at before any is changed.
        with undisturbed(pl_module):
            for link in chosen:
                taken, _ = passed(network, batch.inputs, link)
                means: Any = link.by_unit(taken.float().abs()).flatten(1).mean(1)
                means = trainer.strategy.reduce(means, reduce_op="mean")
                dormant_units.append(dormant(means, self.threshold))
        with torch.no_grad():
            for place, (link, units) in enumerate(zip(chosen, dormant_units, strict=True)):
                self._begin_anew(trainer, link, units, self.drawn_anew(trainer, link.first, place))

    def _begin_anew(self, trainer: pl.Trainer, link: Link, units: Tensor, fresh: nn.Module) -> None:
        for own, new in zip(link.first.parameters(), fresh.parameters(), strict=True):
            own[units] = new.to(own)[units]
            forget(trainer, own, units)
        for norm in link.norms:
            held: list[tuple[str, Tensor]] = [*norm.named_parameters(), *norm.named_buffers()]
            for name, values in held:
                if values.shape == units.shape:
                    values[units] = 1.0 if name in ("weight", "running_var") else 0.0
                    forget(trainer, values, units)
        outgoing = link.second.get_parameter("weight")
        columns = units.repeat_interleave(link.columns)
        outgoing[:, columns] = 0
        forget(trainer, outgoing, (slice(None), columns))
