"""Regularisation for a part of training only."""

from functools import partial
from typing import Any, ClassVar, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import nn

from critical_periods.callbacks.image_data import image_data
from critical_periods.callbacks.windows.dropout import Setting, dropout_settings
from critical_periods.callbacks.windows.dropout_watch import DropoutWatch
from critical_periods.callbacks.windows.window import Window, open_windows
from critical_periods.core.errors import UserError, near
from critical_periods.core.trainer import Unit

Regularizer = Literal["weight_decay", "augmentation", "dropout"]
# Of an optimiser and a group in it, or a number of its own.
Place = tuple[int, int]


class RegularizationWindow(Window):
    """A regulariser acts from ``onset`` to ``removal - 1`` and in no other epoch (or step).

    Golatkar, Achille & Soatto 2019, *Time Matters in Regularizing Deep Networks*: what weight decay
    and augmentation do is done at the start of training; taken away later they are not missed, and
    put in later they do not help. A window from 0 to t takes the regulariser away at t; one from t
    to the end puts it in at t; one with ``onset = removal`` never lets it act.

    What acts is what the run is configured with: the ``weight_decay`` of each parameter group, the
    DataModule's ``augment``, every probability of dropping. Outside of the window these are 0,
    ``"none"`` and 0; after training they are as they were.

    Probabilities of dropping are those of torch's dropout layers, recurrent networks and
    ``nn.MultiheadAttention``, and numbers in other modules that are named so: ``drop_prob``,
    ``attention_dropout``, ``layerdrop``, the ``p`` of a ``StochasticDepth``, …. Whatever else is
    random in the network (a functional dropout with a number in its call, a mask of random numbers,
    noise in training mode alone) is found by the numbers that a forward pass draws in the first
    training batch, and in each one outside of the window, and is refused before the optimiser's
    step. What is drawn in evaluation mode as well and is no mask, such as the noise of a
    variational autoencoder, is left alone with a warning. Compiled code is not looked into.

    A weight decay that the run sets anew while it trains, as DINO's schedule does, acts as it is
    set where the window is open; where it is closed, it is 0 in each step of the optimiser.

    With several windows for one regulariser, it acts where any of them is open. Each epoch logs
    ``regularization/active``: 1 where any window, of any regulariser, is open.

    Args:
        regularizer: ``weight_decay``, ``augmentation`` or ``dropout``.
        onset: the first epoch (or step) with the regulariser.
        removal: the first one without it; ``None`` means to the end.
        unit: ``epoch`` or ``step``: what both are counted in.

    Raises:
        UserError: the regulariser is none of the three; before training, there is nothing to switch
            in the run; before the step of a batch, something drops that cannot be switched off, or
            the run sets a probability of dropping while the window is closed.

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
        self._configured: dict[Place, Any] = {}
        self._dropout: list[Setting] = []
        self._is_on = True
        self._looked_closely: set[bool] = set()
        self._watch: DropoutWatch | None = None
        self._hooks: list[Any] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers what is configured, before a checkpoint brings what it was switched to."""
        self._configured = {}
        self._dropout = [one for part in pl_module.modules() for one in dropout_settings(part)]
        settings = self._settings(trainer).items()
        self._configured = {place: holder[name] for place, (holder, name) in settings}
        if all(value in (0, "none") for value in self._configured.values()):
            missing = {
                "weight_decay": "the weight decay of every parameter group is 0",
                "augmentation": "its DataModule has augment='none'",
                "dropout": f"{type(pl_module).__name__} has no layer that drops anything",
            }
            raise UserError(
                f"regularizer={self.regularizer!r} of RegularizationWindow has nothing to switch "
                f"in this run: {missing[self.regularizer]}; configure what is to act in the window."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches, and sees to it that the optimisers take their steps as switched."""
        # What a checkpoint has brought may be on or off.
        self._is_on, self._looked_closely = False, set()
        self._watch = DropoutWatch(pl_module) if self.regularizer == "dropout" else None
        super().on_train_start(trainer, pl_module)
        if self.regularizer == "weight_decay":
            hook = partial(self._before_step, trainer)
            self._hooks = [one.register_step_pre_hook(hook) for one in trainer.optimizers]

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches the regulariser on or off."""
        was_on = self._is_on
        open_now = {one.regularizer for one in open_windows(trainer, RegularizationWindow)}
        self._is_on = self.regularizer in open_now
        # What is on stays as the run may have set it since.
        if not (was_on and self._is_on):
            self._set(trainer)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets everything as it was configured, or as the run has set it since."""
        while self._hooks:
            self._hooks.pop().remove()
        if self._watch is not None:
            self._watch.stop()
        if self._configured and not self._is_on:
            self._is_on = True
            self._set(trainer)

    def _settings(self, trainer: pl.Trainer) -> dict[Place, Setting]:
        """What holds each setting of the regulariser, and its name there."""
        if self.regularizer == "augmentation":
            purpose = "regularizer='augmentation' of RegularizationWindow switches"
            return {(0, 0): (image_data(trainer, purpose).__dict__, "augment")}
        if self.regularizer == "dropout":
            return {(0, number): setting for number, setting in enumerate(self._dropout)}
        return {
            (place, number): (group, "weight_decay")
            for place, optimizer in enumerate(trainer.optimizers)
            for number, group in enumerate(optimizer.param_groups)
            if "weight_decay" in group
        }

    def _set(self, trainer: pl.Trainer) -> None:
        off = "none" if self.regularizer == "augmentation" else 0.0
        for place, (holder, name) in self._settings(trainer).items():
            if self._is_on and holder[name] == off:
                # Of a parameter group that was added since nothing else is known.
                holder[name] = self._configured.get(place, off)
            elif not self._is_on and holder[name] != off:
                # As it was configured, or as the run has set it since.
                self._configured[place], holder[name] = holder[name], off

    # Weight decay.

    def _before_step(
        self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> Any:
        """Has the weight decay of a closed window be 0 whatever the run sets before the step."""
        if self._is_on:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._set(trainer)
            return None

        # The training step, and a module's hook before the optimiser's step, run within that.
        def and_set() -> Any:
            result = closure()
            self._set(trainer)
            return result

        if "closure" in kwargs:
            return args, {**kwargs, "closure": and_set}
        return (args[0], and_set, *args[2:]), kwargs

    # Dropout.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins to look what drops: in the first batch, and in each outside of the window."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        closely = self._is_on not in self._looked_closely
        if self._watch is not None and (closely or not self._is_on):
            self._looked_closely.add(self._is_on)
            self._watch.start(closely)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Refuses what drops in spite of the window, before an optimiser takes its step."""
        self._validate_dropout(pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """The same in a module that goes backward by itself."""
        self._validate_dropout(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Refuses what drops in a batch without a step, too; then that of all windows."""
        self._end_watch(pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _validate_dropout(self, pl_module: pl.LightningModule) -> None:
        self._end_watch(pl_module)
        # At the end of a batch, another window of the same regulariser may be open already.
        is_off = self._watch is not None and not self._is_on
        for part in pl_module.modules() if is_off else ():
            for holder, name in dropout_settings(part):
                if holder[name] != 0:
                    raise UserError(
                        f"regularizer='dropout' of RegularizationWindow is off, but this run has "
                        f"set {name}={holder[name]} of {_described(part, pl_module)}; leave that "
                        "to the window, or schedule dropout without one."
                    )

    def _end_watch(self, pl_module: pl.LightningModule) -> None:
        if self._watch is None:
            return
        self._watch.stop()
        which = "regularizer='dropout' of RegularizationWindow"
        for module, function, is_noise in self._watch.found:
            name = _described(module, pl_module)
            raise UserError(
                f"{which} cannot switch all that is random in training: {name} adds noise by "
                f"{function} there, and none in evaluation mode; have it do so by a float "
                "attribute that is called dropout, and not at all where that is 0."
                if is_noise
                else f"{which} cannot switch all that drops: {name} drops by {function}, and by no "
                "number that is known; use nn.Dropout there, or keep its probability in a float "
                "attribute that is called dropout."
            )
        while self._watch.of_model:
            module, function, _ = self._watch.of_model.pop()
            rank_zero_warn(
                f"{which} leaves alone what {_described(module, pl_module)} draws by {function}, "
                "as it does so in evaluation mode, too."
            )


def _described(part: nn.Module, pl_module: pl.LightningModule) -> str:
    """A module in a sentence, by its name in the LightningModule."""
    name = next(name for name, one in pl_module.named_modules() if one is part)
    return f"{name!r} ({type(part).__name__})" if name else f"{type(part).__name__} itself"
