"""Pre-training as a window: for a while, the training samples are those of another data set."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from critical_periods.callbacks.class_numbers import class_numbers
from critical_periods.callbacks.image_data import image_data, validate_interval
from critical_periods.callbacks.windows.window import Window, open_windows, windows
from critical_periods.core.errors import UserError
from critical_periods.core.internals import finish_resumed_epoch, reload_every_epoch
from critical_periods.core.trainer import Unit
from critical_periods.data.example import two_samples
from critical_periods.data.images import ImageDataModule, Source


class SourceWindow(Window):
    """From epoch ``onset`` to ``removal - 1``, training samples come from another DataModule.

    An epoch is then one of that DataModule: its samples in its order, its batches, augmentation and
    normalisation, to the bit those of a run on it alone. Deficits, validation and measurements stay
    with the run's own data, the target. Logs ``source/active``. A window from 0 is pre-training
    (Huang et al. 2023); where the result is worse than without it, *negative* pre-training (Zilly
    et al. 2022).

    Args:
        data: the source.
        onset: the first epoch on it.
        removal: the first epoch on the target again; ``None`` means to the end.
        mapping: the class of the target for each class of the source, by names; those that are
            left out keep theirs. By default both have the same names in the same order.
        unit: ``epoch``; ``step`` is refused, as an epoch's images are drawn before its first step.

    Raises:
        UserError: the unit is a step; before training, a DataModule is none of images of this
            package, the classes are others or in another order, images have another shape, or two
            of these windows are open at once.

    Example:
        >>> from critical_periods.data import FacesDataModule
        >>> window = SourceWindow(FacesDataModule(database="wild"), removal=30)
        >>> [window.is_open(epoch) for epoch in (0, 29, 30)]
        [True, True, False]
    """

    kind: ClassVar[str] = "source"
    changes_nothing_while_closed: ClassVar[bool] = True

    def __init__(
        self,
        data: ImageDataModule,
        onset: int = 0,
        removal: int | None = None,
        mapping: Mapping[str, str] | None = None,
        unit: Unit = "epoch",
    ) -> None:
        super().__init__(onset, removal, unit)
        if unit == "step":
            raise UserError(
                "unit='step' of SourceWindow: the images of an epoch are drawn before its first "
                "step and cannot change within it; give onset and removal in epochs."
            )
        if not isinstance(data, ImageDataModule):
            raise UserError(
                f"SourceWindow takes samples from a DataModule of images of critical_periods, not "
                f"from {type(data).__name__}; use one of those, such as ImageFolderDataModule."
            )
        self.data = data
        self.mapping = None if mapping is None else dict(mapping)
        self._classes = torch.empty(0, dtype=torch.long)
        self._restore_reloading: Callable[[], None] | None = None

    def fingerprint(self) -> str:
        """A hash of the source's data."""
        self.data.setup()
        return self.data.fingerprint()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks the source against the target, then has each epoch's loader made anew."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        target = _target(trainer)
        if trainer.is_global_zero:
            self.data.prepare_data()
        trainer.strategy.barrier()
        self.data.setup(stage)
        self._classes = class_numbers(
            "SourceWindow", self.data.class_names, target.class_names, self.mapping
        )
        shapes = [tuple(two_samples(one, pl_module).views.shape[1:]) for one in (self.data, target)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"samples of {type(self.data).__name__} of SourceWindow have the shape {shapes[0]} "
                f"(views, channels, height, width), those of {type(target).__name__} "
                f"{shapes[1]}; let both be alike."
            )
        for epochs in self.data.epochs(trainer.world_size):
            validate_interval(trainer, len(epochs), f"{type(self.data).__name__} of SourceWindow")
        if self.onset == self.removal:
            return
        for other in windows(trainer, SourceWindow):
            first = max(self.onset, other.onset)
            if other is not self and self.is_open(first) and other.is_open(first):
                raise UserError(
                    f"two windows are open at once, {self.described} and {other.described}; an "
                    "epoch is on one source alone."
                )
        self.data.trainer = trainer
        target.sources.append(self.data)
        if target.source is None:
            target.source = lambda: source_now(trainer)
            self._restore_reloading = reload_every_epoch(trainer)

    def source(self, share: float = 1.0) -> Source:
        """The data set, of which a share of the samples is taken."""
        return Source(self.data, self._classes, share)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on after a checkpoint of an epoch's last batch with the next epoch's first."""
        # No epoch has more batches than there are samples.
        samples = (len(one.train_subset(1)) for one in (self.data, _target(trainer)))
        finish_resumed_epoch(trainer, max(samples))
        super().on_train_start(trainer, pl_module)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the target its own samples again, and the Trainer its setting."""
        if self._restore_reloading is not None:
            target = _target(trainer)
            target.source = None
            target.sources.clear()
            self._restore_reloading()
            self._restore_reloading = None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restores after a dry run, too, which sets up but does not train."""
        self.restore(trainer, pl_module)


def source_now(trainer: pl.Trainer) -> Source | None:
    """The source of this epoch, if it has one: of an open window, or of one that fades out."""
    for one in open_windows(trainer, SourceWindow):
        return one.source()
    # GradualChange, which knows of this window and not the reverse.
    fading: list[Any] = [one for one in windows(trainer, Window) if hasattr(one, "source_share")]
    share = max((one.source_share(one.now(trainer)) for one in fading), default=0.0)
    closed = [
        (one.removal, one)
        for one in windows(trainer, SourceWindow)
        if one.removal is not None and one.onset < one.removal <= one.now(trainer)
    ]
    if not share or not closed:
        return None
    return max(closed, key=lambda pair: pair[0])[1].source(share)


def _target(trainer: pl.Trainer) -> ImageDataModule:
    return image_data(trainer, "SourceWindow takes the place of the training images of")
