"""Usable information of all views and of each alone, through training."""

import pytorch_lightning as pl
import torch
from torch import nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.core.batch import Batch
from critical_periods.core.project import Likelihood, Project
from critical_periods.metrics.information import UsableInformation


class UsableInformationMonitor(Monitor):
    """Logs what the network can say about the target, in bits, from all views and from each alone.

    I = H(Y) - cross-entropy: ``information/both`` with all views, ``information/view_0``, … with
    the others set to zero (Kleinman et al. 2023, section 4.1 and Fig. 9, 10). A view alone means
    something only to a network that has met it alone in training: give the DataModule a
    ``mask_probability`` of 0.1. What it is for another ``likelihood`` of ``project`` than that of a
    classifier's logits says :func:`~critical_periods.metrics.functional.usable_information`.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.
        split: which samples.
        samples: how many, over all processes together; all by default.
        project: where things are in a third party's project (:class:`Project`).

    Example:
        >>> monitor = UsableInformationMonitor(every_n_epochs=5)
    """

    target_needed = True
    has_likelihood = True

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        split: str = "val",
        samples: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Measures two samples."""
        outputs = network(*example.inputs)
        # Those of each pixel are counted by themselves.
        self.one_shape = outputs.ndim > 2
        _add(network, example, {}, self.likelihood)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the informations."""
        network = self.network_of(pl_module)
        metrics: dict[str, UsableInformation] = {}
        for batch in self.batches(trainer):
            _add(network, batch, metrics, self.likelihood)
        for name, metric in metrics.items():
            log_scalar(pl_module, f"information/{name}", metric.compute())


def _add(
    network: nn.Module,
    batch: Batch,
    metrics: dict[str, UsableInformation],
    likelihood: Likelihood,
) -> None:
    """Adds a batch to the metrics of all views and of each alone."""
    views = list(batch.inputs)
    conditions = {"both": views}
    for view in range(len(views)) if len(views) > 1 else ():
        conditions[f"view_{view}"] = [
            seen if place == view else torch.zeros_like(seen) for place, seen in enumerate(views)
        ]
    for name, seen in conditions.items():
        logits = network(*seen)
        if name not in metrics:
            places = (
                logits[0, 0].numel() if likelihood == "categorical" and logits.ndim > 2 else None
            )
            outputs = logits[0].numel() // (places or 1)
            metrics[name] = UsableInformation(outputs, likelihood, places).to(logits.device)
        metrics[name].update(logits, batch.target)
