"""A picture of what a study's networks see, with and without the deficit."""

import copy
from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.callbacks.samples import example_batch
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.callbacks.windows.window import windows
from critical_periods.core.batch import Batch
from critical_periods.core.files import replacing
from critical_periods.plots.style import subplots

SEEN = "seen.png"
"""The picture in the study's folder."""
_SAMPLES = 4


def keep_seen(trainer: pl.Trainer, folder: Path) -> None:
    """Draws it of a run that has a deficit, from its own data, once a study.

    A deficit of the targets, and data that is no image, has no such picture.
    """
    found = [one for one in windows(trainer, DeficitWindow) if one.onset != one.removal]
    if (folder / SEEN).exists() or not found or found[0].deficit.edits_target:
        return
    with isolate_rng(), torch.no_grad():
        batch = example_batch(trainer, "val")
        if batch is None or not batch.is_stacked or batch.views.ndim < 5:
            return
        clean = batch.first(_SAMPLES)
        # What it draws once and for all it draws in training.
        deficit = copy.deepcopy(found[0].deficit).to(clean.target.device)
        figure = _figure(clean, deficit(clean))
    with replacing(folder / SEEN) as part:
        figure.savefig(part, format="png", dpi=150)


def _figure(clean: Batch, deficient: Batch) -> Figure:
    """A row a sample; for each view without and with the deficit, in the range of the former."""
    pairs = [(n, batch.inputs[n]) for n in range(len(clean.inputs)) for batch in (clean, deficient)]
    rows, columns = len(clean.target), len(pairs)
    figure, axes = subplots(rows, columns, (1.6 * columns, 1.6 * rows + 0.4))
    for place, (view, images) in enumerate(pairs):
        axes[0][place].set_title(
            f"view {view}, {'with' if place % 2 else 'without'}", fontsize="small"
        )
        for axis, image, base in zip(axes[:, place], images, clean.inputs[view], strict=True):
            low, high = base.min(), base.max()
            # Of a video its first frame; of more than three channels their mean.
            image = ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).float().cpu()
            image = image.flatten(0, -4)[0] if image.ndim > 3 else image
            shown = image.permute(1, 2, 0) if len(image) == 3 else image.mean(0)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
    return figure
