"""Regularisation for a part of training only."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import pytorch_lightning as pl
from torch import nn

from critical_periods.callbacks.windows.image_data import image_data
from critical_periods.callbacks.windows.window import Window, open_windows
from critical_periods.core.errors import UserError, near
from critical_periods.core.trainer import Unit

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_ALPHA_DROPOUT = (nn.AlphaDropout, nn.FeatureAlphaDropout)

Regularizer = Literal["weight_decay", "augmentation", "dropout"]


class RegularizationWindow(Window):
    """A regulariser acts from ``onset`` to ``removal - 1`` and in no other epoch (or step).

    Golatkar, Achille & Soatto 2019, *Time Matters in Regularizing Deep Networks*: what weight decay
    and augmentation do is done at the start of training; taken away later they are not missed, and
    put in later they do not help. A window from 0 to t takes the regulariser away at t; one from t
    to the end puts it in at t; one with ``onset = removal`` never lets it act.

    What acts is what the run is configured with: the ``weight_decay`` of each parameter group, the
    DataModule's ``augment``, the probability of every dropout layer (also timm's ``drop_prob`` and
    ``drop_rate`` and ``nn.MultiheadAttention``'s own). Outside of the window these are 0,
    ``"none"`` and 0; after training they are as they were.

    With several windows for one regulariser, it acts where any of them is open. Each epoch logs
    ``regularization/active``: 1 where any window, of any regulariser, is open.

    Args:
        regularizer: ``weight_decay``, ``augmentation`` or ``dropout``.
        onset: the first epoch (or step) with the regulariser.
        removal: the first one without it; ``None`` means to the end.
        unit: ``epoch`` or ``step``: what both are counted in.

    Raises:
        UserError: the regulariser is none of the three; before training, there is nothing to switch
            in the run.

    Example:
        >>> window = RegularizationWindow("weight_decay", removal=60)
        >>> [window.is_open(epoch) for epoch in (0, 59, 60)]
        [True, True, False]
    """

    kind: ClassVar[str] = "regularization"

    def __init__(
        self,
        regularizer: Regularizer,
        onset: int = 0,
        removal: int | None = None,
        unit: Unit = "epoch",
    ) -> None:
        super().__init__(onset, removal, unit)
        known = get_args(Regularizer)
        if regularizer not in known:
            raise UserError(
                f"regularizer={regularizer!r} of RegularizationWindow is unknown; "
                f"{near(regularizer, known)}"
            )
        self.regularizer: Regularizer = regularizer
        self._configured: list[Any] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers what is configured, before a checkpoint brings what it was switched to."""
        self._configured = []
        settings = _settings(self.regularizer, trainer, pl_module)
        self._configured = [holder[name] for holder, name in settings]
        if all(value in (0, "none") for value in self._configured):
            missing = {
                "weight_decay": "the weight decay of every parameter group is 0",
                "augmentation": "its DataModule has augment='none'",
                "dropout": f"{type(pl_module).__name__} has no layer that drops anything",
            }
            raise UserError(
                f"regularizer={self.regularizer!r} of RegularizationWindow has nothing to switch "
                f"in this run: {missing[self.regularizer]}; configure what is to act in the window."
            )

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches the regulariser on or off."""
        open_now = {one.regularizer for one in open_windows(trainer, RegularizationWindow)}
        self._set(trainer, pl_module, self.regularizer in open_now)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets everything as it was configured."""
        if self._configured:
            self._set(trainer, pl_module, True)

    def _set(self, trainer: pl.Trainer, pl_module: pl.LightningModule, is_on: bool) -> None:
        off = "none" if self.regularizer == "augmentation" else 0.0
        settings = _settings(self.regularizer, trainer, pl_module)
        # Parameter groups that were added since stay as they are.
        for (holder, name), configured in zip(settings, self._configured, strict=False):
            holder[name] = configured if is_on else off


def _settings(
    regularizer: Regularizer, trainer: pl.Trainer, pl_module: pl.LightningModule
) -> list[tuple[dict[str, Any], str]]:
    """What holds each setting of a regulariser, and its name there."""
    if regularizer == "weight_decay":
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        return [(group, "weight_decay") for group in groups if "weight_decay" in group]
    if regularizer == "augmentation":
        purpose = "regularizer='augmentation' of RegularizationWindow switches"
        return [(image_data(trainer, purpose).__dict__, "augment")]
    return [setting for module in pl_module.modules() for setting in _dropout(module)]


def _dropout(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(module, _DROPOUT + _ALPHA_DROPOUT):
        yield module.__dict__, "p"
    elif isinstance(module, nn.MultiheadAttention):
        yield module.__dict__, "dropout"
    for name in ("drop_prob", "drop_rate"):
        if isinstance(module.__dict__.get(name), float):
            yield module.__dict__, name
