"""How much of what a network goes by lies in which region of a picture."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.network import modules_named
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.metrics.functional.maps import energy_share, grad_cam


class RegionMonitor(Monitor):
    """Logs, for each region of the pictures, whether the network looks there and what it is worth.

    - ``region/<name>/energy``: the mean share of Grad-CAM's energy that lies in the region, over
      the region's share of the area (:func:`~critical_periods.metrics.functional.energy_share`):
      1 where the network looks no more there than elsewhere;
    - ``region/<name>/without``: the accuracy where the region has the mean colour instead.

    The regions are those of ``regions(split, index)`` of the DataModule, such as
    :class:`~critical_periods.data.FacesDataModule`. Maps are of the class that is answered.

    Args:
        layer: whose maps, as ``named_modules`` of the network has it.
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples.
        samples: how many, over all processes together; all by default.

    Raises:
        UserError: before training, the data knows no regions, the network has no such layer, or
            torchcam (extra ``maps``) is not installed.

    Example:
        >>> monitor = RegionMonitor("conv6", samples=100)
    """

    target_needed = True
    has_likelihood = True

    def __init__(
        self,
        layer: str,
        every_n_epochs: int | None = None,
        split: str = "val",
        samples: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples)
        self.layer = layer

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the data knows regions."""
        super().setup(trainer, pl_module, stage)
        data = datamodule_of(trainer)
        if stage == "fit" and not hasattr(data, "regions"):
            raise UserError(
                f"RegionMonitor needs data with regions(split, index), which {type(data).__name__} "
                "does not have; use FacesDataModule, or leave it out."
            )

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Makes the maps of two samples."""
        self._maps(network, example, example.target)

    def _maps(self, network: nn.Module, batch: Batch, classes: Tensor) -> Tensor:
        (layer,) = modules_named("layer", self, [self.layer], self._named(network))
        return grad_cam(network, layer, batch.inputs, classes)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs energies and accuracies."""
        network, data = self.network_of(pl_module), datamodule_of(trainer)
        means: dict[str, MeanMetric] = {}

        def add(key: str, values: Tensor) -> None:
            metric = means.setdefault(key, MeanMetric(nan_strategy="ignore").to(values.device))
            metric.update(values)

        for batch in self.batches(trainer):
            maps = self._maps(network, batch, network(*batch.inputs).argmax(1))
            for name, mask in data.regions(self.split, batch.index).items():
                add(f"region/{name}/energy", energy_share(maps, mask))
                hidden = [torch.where(mask[:, None], 0.0, view) for view in batch.inputs]
                right = network(*hidden).argmax(1) == batch.target
                add(f"region/{name}/without", right.float())
        for key, metric in means.items():
            log_scalar(pl_module, key, metric.compute())
