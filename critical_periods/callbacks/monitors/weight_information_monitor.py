"""The information in the weights through training."""

import math
from collections.abc import Sequence
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.samples import shared_samples
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.metrics.functional.fisher import layer_of
from critical_periods.metrics.functional.learned_noise import (
    WeightInformation,
    check_settings,
    noisy_parameters,
    weight_information,
)
from critical_periods.metrics.functional.likelihood import mean_loss

# At most so many samples a step: the noise varies more than they do, so more draws tell more.
_STEP = 32


class WeightInformationMonitor(Monitor):
    """Logs how many nats the weights hold at a stated price, by the noise that they tolerate.

    Each layer's weights get Gaussian noise, as much of it as cross-entropy (or the mean loss of
    the ``likelihood`` of ``project``) plus ``price`` times the information allows
    (:func:`~critical_periods.metrics.functional.weight_information`; the first version of Achille,
    Rovere & Soatto). It logs

    - ``information/weights``: nats in the whole network, the sum of
    - ``information/weights/<layer>``: nats in each layer;
    - ``information/noisy_loss``: the cross-entropy that is left under that noise. Compare it with
      the loss without: where it comes near log K, the price was too high for anything to stay.

    All processes measure the same samples under the same noise, which is also the same at every
    epoch. A measurement costs ``steps`` · 64 forward and backward passes of one sample.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples; clean training data by default.
        samples: how many.
        price: cross-entropy per sample, in nats, that one nat in the weights is worth. Choose it
            well below 1 / (number of weights); the default suits up to some hundred thousand.
        steps: how long to search; twice as many leave about 0.7 of the random error.
        layers: these get noise and the others none; by default all.
        project: where things are in a third party's project (:class:`Project`).

    Raises:
        UserError: price or steps is not positive; before training, a layer that the network does
            not have, or samples without targets.

    Example:
        >>> monitor = WeightInformationMonitor(every_n_epochs=20, price=1e-5, layers=["head"])
    """

    target_needed = True
    has_likelihood = True
    one_shape = True

    def __init__(
        self,
        every_n_epochs: int | None = None,
        split: str = "train",
        samples: int | None = 256,
        price: float = 1e-6,
        steps: int = 400,
        layers: Sequence[str] | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        check_settings(type(self).__name__, price=price, steps=steps)
        self.price = price
        self.steps = steps
        self.layers = layers

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the layers."""
        noisy_parameters(self.network_of(pl_module), self.layers)

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Takes one step of the search on two samples."""
        self._validate_target(example.target)
        self._search(network, [(example.inputs, example.target)], steps=1)

    def _search(
        self, network: nn.Module, batches: Sequence[tuple[Sequence[Tensor], Tensor]], steps: int
    ) -> WeightInformation:
        layers = self.layers
        if layers is not None and self._by_forward:
            # What is measured may have another name for them.
            named = self._named(network).named_parameters()
            owned = [p for n, p in named if layer_of(n) in layers]
            layers = [layer_of(n) for n, p in network.named_parameters() if _is_in(p, owned)]
        loss = partial(mean_loss, likelihood=self.likelihood)
        return weight_information(network, batches, self.price, steps, layers=layers, loss=loss)

    def _validate_target(self, target: Tensor) -> None:
        if self.likelihood != "categorical":
            return
        if not target.is_floating_point() and (target < 0).any():
            raise UserError(
                f"split={self.split!r} of WeightInformationMonitor has samples without a class; "
                "choose a split whose loader gives images and targets."
            )

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the informations."""
        batch = shared_samples(trainer, self.split, self.samples, self.project, True)
        target = batch.target
        self._validate_target(target)
        parts = math.ceil(len(target) / _STEP)
        inputs = zip(*(view.tensor_split(parts) for view in batch.inputs), strict=True)
        batches = list(zip(inputs, target.tensor_split(parts), strict=True))
        network = self.network_of(pl_module)
        result = self._search(network, batches, self.steps)
        log_scalar(pl_module, "information/weights", torch.stack([*result.nats.values()]).sum())
        for layer, nats in result.nats.items():
            log_scalar(pl_module, f"information/weights/{layer}", nats)
        log_scalar(pl_module, "information/noisy_loss", result.loss)


def _is_in(parameter: Tensor, parameters: Sequence[Tensor]) -> bool:
    return any(parameter is one for one in parameters)
