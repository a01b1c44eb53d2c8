"""Which classes are taken for which, through training."""

import csv

import pytorch_lightning as pl
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from critical_periods.callbacks.monitors.likelihoods import check_one_class
from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.monitors.pictures import keep_figure
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.trainer import datamodule_of, results_folder


class ConfusionMatrixMonitor(Monitor):
    """Logs the confusion matrix: row i is what samples of class i are taken for.

    Counts are torchmetrics'; rows are normalised: each sums to 1, or to 0 for a class without
    samples; ``recall/<class>`` is the diagonal. The matrix is written to
    ``<log_dir>/confusion/epoch_<epoch>.csv`` and drawn to ``….png``, which the logger gets too.
    Classes are called as ``class_names`` of the DataModule has them (Huang et al. 2023, Fig. 8).

    Args: those of :class:`~critical_periods.callbacks.monitors.monitor.Monitor`.

    Raises:
        UserError: as by :class:`.Monitor`; the outputs are not one number for each class, or the
            targets not one class each.

    Attributes:
        matrix: of the last measurement, [K, K].

    Example:
        >>> monitor = ConfusionMatrixMonitor(every_n_epochs=10)
    """

    target_needed = True
    has_likelihood = True
    matrix: Tensor

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Looks whether the outputs are one number for each class, and targets one class."""
        if (logits := network(*example.inputs)).ndim != 2 or logits.shape[1] < 2:
            raise UserError(
                f"ConfusionMatrixMonitor needs logits [B, K], but the network gives "
                f"{list(logits.shape)}; leave it out, or name the network by a Project."
            )
        check_one_class(self, example)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures, writes, draws and logs the matrix."""
        from matplotlib.figure import Figure  # takes a while, and most monitors do not need it

        network, metric = self.network_of(pl_module), None
        for batch in self.batches(trainer):
            logits = network(*batch.inputs)
            if metric is None:
                metric = MulticlassConfusionMatrix(logits.shape[1]).to(logits.device)
            metric.update(logits, batch.target)
        assert metric is not None
        counts = metric.compute()
        self.matrix = counts / counts.sum(1, keepdim=True).clamp(min=1)
        names = class_names(trainer, len(self.matrix))
        for name, value in zip(names, self.matrix.diagonal(), strict=True):
            log_scalar(pl_module, f"recall/{name}", value)
        folder = results_folder(trainer, "confusion")
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            with (
                replacing(folder / f"epoch_{trainer.current_epoch:04d}.csv") as part,
                part.open("w", newline="", encoding="utf-8") as file,
            ):
                rows = zip(names, self.matrix.tolist(), strict=True)
                csv.writer(file).writerows([["class", *names], *([n, *row] for n, row in rows)])
        figure = Figure(figsize=(1.5 + 0.6 * len(names),) * 2, layout="constrained")
        metric.plot(self.matrix.cpu(), ax=figure.add_subplot(), labels=names)
        keep_figure(trainer, "confusion", figure)


def class_names(trainer: pl.Trainer, number: int) -> list[str]:
    """The names of the classes, as far as the data knows them, or else their numbers."""
    given = getattr(datamodule_of(trainer), "class_names", None)
    # That of a third party's data may be anything, or the names of other classes.
    known = [*map(str, given)] if isinstance(given, (list, tuple)) else []
    if len(known) > number:
        known = []
    return known + [str(place) for place in range(len(known), number)]
