"""Accuracy on other data sets than the one that is trained on."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from critical_periods.callbacks.class_numbers import class_numbers
from critical_periods.callbacks.image_data import image_data
from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.core.errors import UserError
from critical_periods.data.example import two_samples
from critical_periods.data.images import ImageDataModule


class CrossDatasetMatrix(Monitor):
    """Tests on several data sets: a row of the matrix *trained on, tested on*.

    Logs ``cross/<name>``, the accuracy on the test split of each, by the names of the classes. Of a
    data set that lacks some, answers are among those that it has (as in Huang et al. 2023). A study
    whose variants train on each (called as here) gives the whole matrix, ``cross.csv`` and
    ``cross.png``: means and 95 % intervals over seeds, and the differences, paired by seed, to the
    runs that were trained on what is tested.

    Args:
        datasets: DataModules of images of this package, by the names of the matrix's columns.
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.

    Raises:
        UserError: there is no data set, or one is no DataModule of images of this package; before
            training, one has other classes or pictures of another shape.

    Example:
        >>> from critical_periods.data import FacesDataModule
        >>> wild = FacesDataModule(database="wild")
        >>> matrix = CrossDatasetMatrix({"posed": FacesDataModule(), "wild": wild})
    """

    has_likelihood = True

    def __init__(
        self, datasets: Mapping[str, ImageDataModule], every_n_epochs: int | None = None
    ) -> None:
        super().__init__(every_n_epochs)
        self.datasets = dict(datasets)
        if not self.datasets:
            raise UserError("datasets of CrossDatasetMatrix is empty; name the ones to test on.")
        for name, data in self.datasets.items():
            if not isinstance(data, ImageDataModule):
                raise UserError(
                    f"datasets of CrossDatasetMatrix has {name!r}, a {type(data).__name__}; use "
                    "DataModules of images of critical_periods."
                )
        self._numbers: dict[str, Tensor] = {}

    def fingerprint(self) -> str:
        """A hash of the data."""
        for data in self.datasets.values():
            data.setup()
        return " ".join(data.fingerprint() for data in self.datasets.values())

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Sets the data sets up, and compares their classes and shapes."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        trained = image_data(trainer, "CrossDatasetMatrix goes by the class names of")
        shape = two_samples(trained, pl_module).views.shape[1:]
        for name, data in self.datasets.items():
            if trainer.is_global_zero:
                data.prepare_data()
            trainer.strategy.barrier()
            data.setup(stage)
            owner = f"CrossDatasetMatrix ({name})"
            self._numbers[name] = class_numbers(owner, data.class_names, trained.class_names, {})
            if (other := two_samples(data, pl_module).views.shape[1:]) != shape:
                raise UserError(
                    f"samples of {name!r} of CrossDatasetMatrix have the shape {tuple(other)} "
                    f"(views, channels, height, width), those that are trained on {tuple(shape)}; "
                    "let them be alike."
                )
            data.trainer = trainer

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the accuracies."""
        network = self.network_of(pl_module)
        for name, data in self.datasets.items():
            metric = MeanMetric().to(pl_module.device)
            numbers = self._numbers[name].to(pl_module.device)
            for draw in data.measurement_loader("test"):
                moved = data.transfer_batch_to_device(draw, pl_module.device, 0)
                batch = data.on_after_batch_transfer(moved, 0)
                logits = network(*batch.inputs)
                others = torch.ones_like(logits, dtype=torch.bool)
                others[:, numbers] = False
                answer = logits.masked_fill(others, -torch.inf).argmax(1)
                metric.update((answer == numbers[batch.target]).float())
            log_scalar(pl_module, f"cross/{name}", metric.compute())
