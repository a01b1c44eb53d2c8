"""The Fisher trace through training."""

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.kept_batches import kept_batches
from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.samples import part_of_whole
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.project import Project
from critical_periods.core.trainer import results_folder
from critical_periods.core.whole_batch import PartGenerator
from critical_periods.metrics.fisher import FisherTrace
from critical_periods.metrics.functional.fisher import squared_score_norms

# Of more, such as a label for each pixel, an exact expectation would take hours.
_MOST_OUTPUTS = 4096


class FisherMonitor(Monitor):
    """Logs the trace of the Fisher information: ``fisher/trace`` and ``fisher/trace/<layer>``.

    ``fisher/trace_se`` is the standard error of the former, by the spread of the samples.

    Tr F = E_x E_{y ~ p(y|x)} ||∇_w log p(y|x)||² over the samples x (Achille, Rovere & Soatto
    2019): how much the network's answers depend on its weights. The likelihood p(y|x) is that of
    a classifier's logits, or the ``likelihood`` of ``project``. The layers' traces sum to that
    of the network.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.
        split: which samples; clean training data by default.
        samples: how many, over all processes together.
        num_draws: how often random signs are drawn for each sample, 1 or more
            (:func:`~critical_periods.metrics.functional.squared_score_norms`); by default the exact
            expectation over all outputs, at most 4096. Several processes draw those of one, where
            the DataModule is one of this package.
        project: where things are in a third party's project (:class:`Project`).
        every_n_steps: measures after every so many steps, too, between epochs, and goes on. These
            go to the loggers at once, against the step, with ``epoch`` as a fraction, and in a
            study (whose tables have one row an epoch) to ``fisher/steps.csv`` in the folder of the
            run. A third party's training batches are those of a whole epoch, so there it begins
            when they are kept.

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
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"{every_n_steps=} of FisherMonitor must be at least 1.")
        if num_draws is not None and num_draws < 1:
            raise UserError(
                f"{num_draws=} of FisherMonitor must be at least 1, or null for the exact "
                "expectation over all classes."
            )
        self.num_draws = num_draws
        self.every_n_steps = every_n_steps
        self._steps = 0

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Takes the gradients of one draw for two samples."""
        outputs = network(*example.inputs)[0].numel()
        if self.num_draws is None and outputs > _MOST_OUTPUTS:
            raise UserError(
                f"FisherMonitor would go backward {outputs} times for each sample, once for each "
                "of its outputs; set num_draws, such as 10, to draw some instead."
            )
        draws = torch.Generator().manual_seed(0)
        squared_score_norms(network, example.inputs, 1, draws, likelihood=self.likelihood)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the traces."""
        for key, value in self._traces(trainer, pl_module).items():
            log_scalar(pl_module, key, value)

    def _traces(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Tensor]:
        network, seed = self.network_of(pl_module), trainer.global_rank
        metric = FisherTrace(network, self.num_draws, seed, likelihood=self.likelihood)
        draws = torch.Generator().manual_seed(0)
        for batch in self.batches(trainer):
            if self.num_draws is not None and (part := part_of_whole(batch, trainer)):
                metric.generator = PartGenerator(draws, *part)
            metric.update(*batch.inputs)
        total, layers = metric.compute()
        traces = {"fisher/trace": total, "fisher/trace_se": metric.standard_error}
        return traces | {f"fisher/trace/{layer}": trace for layer, trace in layers.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The dry run."""
        super().on_train_start(trainer, pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measures where ``every_n_steps`` asks for it."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        before, self._steps = self._steps, trainer.global_step
        kept = kept_batches(trainer).get(self.split)
        if self.every_n_steps is None or (kept is not None and not kept.is_complete):
            return
        # Several optimizers count several steps a batch, gathered gradients none.
        if before // self.every_n_steps == self._steps // self.every_n_steps:
            return
        with self.measuring(pl_module):
            traces = self._traces(trainer, pl_module)
        epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        row = {"epoch": epoch} | {key: float(value) for key, value in traces.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, self._steps)
        path = results_folder(trainer, "fisher") / "steps.csv"
        if trainer.is_global_zero:
            _add_row(path, {"step": self._steps, **row})


def _add_row(path: Path, row: dict[str, float]) -> None:
    """Adds a row to a table of steps, in place of what an interrupted run wrote of later ones."""
    rows = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [one for one in csv.DictReader(file) if int(one["step"]) < row["step"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("w", newline="") as file:
        table = csv.DictWriter(file, row, lineterminator="\n")
        table.writeheader()
        table.writerows([*rows, row])
