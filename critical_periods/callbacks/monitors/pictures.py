"""Figures that monitors draw, as files beside the run's and in its logger."""

from io import BytesIO
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from PIL import Image

from critical_periods.core.trainer import log_media, results_folder
from critical_periods.tasks.reconstruction_pictures import save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def keep_figure(trainer: pl.Trainer, kind: str, figure: "Figure") -> None:
    """Writes a figure to ``<log_dir>/<kind>/epoch_<epoch>.png``, and logs it as a picture.

    Every process has to call it; the first one writes.
    """
    folder = results_folder(trainer, kind)
    if not trainer.is_global_zero:
        return
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=100)
        picture = Image.open(file).convert("RGB")
    save_picture(picture, folder / f"epoch_{trainer.current_epoch:04d}.png")
    log_media(trainer, pictures={kind: picture})
