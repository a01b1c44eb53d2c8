"""How well hidden patches are predicted from their own view, from another, and from both."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.samples import measurement_batches
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, uniform
from critical_periods.core.trainer import log_media, results_folder
from critical_periods.models.multi_view.masking import hidden_patches, visible_total
from critical_periods.models.multi_view.patches import patch_grid, to_patches
from critical_periods.tasks.masked_error import masked_error
from critical_periods.tasks.masked_reconstruction import MaskedReconstructionTask
from critical_periods.tasks.reconstruction_pictures import save_picture


class ReconstructionMonitor(Monitor):
    """Logs how well hidden patches are predicted from their own view, from another, and from both.

    Of every view v a random set S_v of n patches may be seen, n being what the task's
    ``mask_ratio`` shows of all views together. The hidden patches of v, those outside S_v, are
    then predicted

    - from S_v: ``reconstruction/own_view``;
    - from S_w of another view w alone, v being hidden altogether: ``reconstruction/other_view``;
    - from the first n / V patches of every S: ``reconstruction/both_views``.

    The patches in question and the number of patches that are seen are the same each time. Each is
    the mean squared error as a share of the variance of those patches' pixels,

        mean (prediction - x)² / (mean x² - (mean x)²),

    averaged over views: a prediction of their mean everywhere has 1, a perfect one 0. Pictures, in
    which S_v is all that is seen, go to
    ``<log_dir>/reconstruction/epoch_<epoch>_from_view_<v>.png`` (Kleinman, Achille & Soatto 2023,
    section 4.4 and Fig. 7).

    Args:
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples.
        samples: how many, over all processes together; all by default.
        pictures: how many samples of the first process are shown.

    Raises:
        UserError: before training, the task is another, or there is only one view.

    Example:
        >>> monitor = ReconstructionMonitor(every_n_epochs=10, samples=512)
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        split: str = "val",
        samples: int | None = None,
        pictures: int = 4,
    ) -> None:
        super().__init__(every_n_epochs, split, samples)
        self.pictures = pictures

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that there are decoders, and another view to predict from."""
        super().setup(trainer, pl_module, stage)
        if not isinstance(pl_module, MaskedReconstructionTask):
            raise UserError(
                "ReconstructionMonitor measures a MaskedReconstructionTask, but this is a "
                f"{type(pl_module).__name__}; leave it out."
            )
        if pl_module.network.num_views < 2:
            raise UserError("ReconstructionMonitor needs at least two views; leave it out.")

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the errors, and draws pictures."""
        assert isinstance(pl_module, MaskedReconstructionTask)
        names = ("own_view", "other_view", "both_views", "mean", "square")
        sums = {name: MeanMetric().to(pl_module.device) for name in names}
        folder = results_folder(trainer, "reconstruction")
        taken = 0
        for batch in measurement_batches(trainer, self.split, self.samples):
            # Where the data does not say which sample it is, its place does.
            place = -1 - taken - torch.arange(len(batch.index), device=batch.index.device)
            chosen = _choose(pl_module, batch, torch.where(batch.index < 0, place, batch.index))
            if taken == 0 and trainer.is_global_zero and len(batch.index[: self.pictures]):
                for view, visible in enumerate(chosen):
                    picture = pl_module.picture(batch, visible, self.pictures)
                    name = f"epoch_{trainer.current_epoch:04d}_from_view_{view}.png"
                    save_picture(picture, folder / name)
                    log_media(trainer, pictures={f"reconstruction/from_view_{view}": picture})
            _measure(pl_module, batch, chosen, sums)
            taken += len(batch.index)
        found = {name: metric.compute() for name, metric in sums.items()}
        variance = found["square"] - found["mean"].square()
        for name in names[:3]:
            log_scalar(pl_module, f"reconstruction/{name}", found[name] / variance)


def _choose(task: MaskedReconstructionTask, batch: Batch, index: Tensor) -> list[Tensor]:
    """S_v of every view: places in the sequence of all patches, [B, n], in random order."""
    views = batch.views.shape[1]
    rows, columns = patch_grid(batch.views, task.network.patch)
    patches = rows * columns
    # Something must be left to predict.
    number = min(visible_total(task.mask_ratio, views, patches), patches - 1)
    draws = uniform(index, views * patches, Stream.MONITORED_PATCHES)
    order = draws.view(-1, views, patches).argsort(dim=2)
    return [order[:, view, :number] + view * patches for view in range(views)]


def _measure(
    task: MaskedReconstructionTask, batch: Batch, chosen: list[Tensor], sums: dict[str, MeanMetric]
) -> None:
    """Adds a batch's errors from every source, and the pixels in question and their squares."""
    views = batch.views.unbind(1)
    patch = task.network.patch
    targets = [to_patches(view, patch) for view in views]
    patches = targets[0].shape[1]
    hidden = [
        hidden_patches(visible, len(views), patches)[:, view] for view, visible in enumerate(chosen)
    ]
    each = max(1, chosen[0].shape[1] // len(views))
    seen = [*chosen, torch.cat([visible[:, :each] for visible in chosen], dim=1)]
    for source, visible in enumerate(seen):
        for view, prediction in enumerate(task.reconstruct(views, visible)):
            error, _ = masked_error(to_patches(prediction, patch), targets[view], hidden[view])
            name = "both_views" if source == len(views) else "other_view"
            sums["own_view" if source == view else name].update(error)
    for target, unseen in zip(targets, hidden, strict=True):
        wide = target.double()[unseen]
        sums["mean"].update(wide)
        sums["square"].update(wide.square())
