"""The Fisher trace through training."""

import pytorch_lightning as pl
import torch
from torch import nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.samples import part_of_whole
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.core.whole_batch import PartGenerator
from critical_periods.metrics.fisher import FisherTrace
from critical_periods.metrics.functional.fisher import squared_score_norms

# Of more, such as a label for each pixel, an exact expectation would take hours.
_MOST_OUTPUTS = 4096


class FisherMonitor(Monitor):
    """Logs the trace of the Fisher information: ``fisher/trace`` and ``fisher/trace/<layer>``.

    Tr F = E_x E_{y ~ p(y|x)} ||∇_w log p(y|x)||² over the samples x (Achille, Rovere & Soatto
    2019): how much the network's answers depend on its weights. The likelihood p(y|x) is that of
    a classifier's logits, or the ``likelihood`` of ``project``. The layers' traces sum to that
    of the network.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.
        split: which samples; clean training data by default.
        samples: how many, over all processes together.
        num_draws: labels drawn for each sample, 1 or more; by default the exact expectation over
            all outputs, at most 4096. Several processes draw the labels of one, where the
            DataModule is one of this package.
        project: where things are in a third party's project (:class:`Project`).

    Example:
        >>> monitor = FisherMonitor(every_n_epochs=2, samples=100)
    """

    has_likelihood = True

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        split: str = "train",
        samples: int | None = 200,
        num_draws: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        if num_draws is not None and num_draws < 1:
            raise UserError(
                f"{num_draws=} of FisherMonitor must be at least 1, or null for the exact "
                "expectation over all classes."
            )
        self.num_draws = num_draws

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Takes the gradients of one label of two samples."""
        outputs = network(*example.inputs)[0].numel()
        if self.num_draws is None and outputs > _MOST_OUTPUTS:
            raise UserError(
                f"FisherMonitor would go backward {outputs} times for each sample, once for each "
                "of its outputs; set num_draws, such as 10, to draw labels instead."
            )
        draws = torch.Generator().manual_seed(0)
        squared_score_norms(network, example.inputs, 1, draws, likelihood=self.likelihood)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the traces."""
        network, seed = self.network_of(pl_module), trainer.global_rank
        metric = FisherTrace(network, self.num_draws, seed, likelihood=self.likelihood)
        draws = torch.Generator().manual_seed(0)
        for batch in self.batches(trainer):
            if self.num_draws is not None and (part := part_of_whole(batch, trainer)):
                metric.generator = PartGenerator(draws, *part)
            metric.update(*batch.inputs)
        total, layers = metric.compute()
        log_scalar(pl_module, "fisher/trace", total)
        for layer, trace in layers.items():
            log_scalar(pl_module, f"fisher/trace/{layer}", trace)
