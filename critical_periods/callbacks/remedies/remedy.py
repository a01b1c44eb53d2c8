"""What all remedies share: a window that nothing precedes, and changes of weights at its epochs."""

import copy
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from critical_periods.callbacks.windows.window import Window
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, fold, global_seed


class Remedy(Window):
    """A window that changes how a network goes on learning, and nothing before it opens.

    ``remedy/active`` is logged each epoch: 1 where any is open. In a study's ``recovery`` its
    epochs are counted from the removal of the deficit.

    Args:
        onset: the first epoch in which it acts.
        removal: the first one in which it does not; ``None`` means to the end.

    Example:
        >>> Remedy(onset=20).described
        'Remedy (onset=20, removal=None)'
    """

    kind: ClassVar[str] = "remedy"
    changes_nothing_before: ClassVar[str] = "onset"
    """The setting with the first epoch in which it changes anything."""

    def __init__(self, onset: int = 0, removal: int | None = None) -> None:
        super().__init__(onset, removal)

    @property
    def state_key(self) -> str:
        """What tells this remedy from others in a checkpoint."""
        return f"{type(self).__name__}(onset={self.onset})"

    def check(self, pl_module: pl.LightningModule, example: Batch) -> None:
        """Checks before training that it can act on a module that takes such samples."""


class Repeated(Remedy):
    """A remedy that changes weights as epochs of its window begin, each time once.

    A subclass overrides :meth:`act`. Its draws come from (seed, epoch), so that a run that goes on
    from a checkpoint, even from within an epoch, has the bits of one that was never stopped.

    Args:
        onset: the first epoch that it acts in.
        removal: the first one that it does not.
        every_n_epochs: it acts again every so many epochs of the window; by default only once.

    Raises:
        UserError: the cadence is less than 1, or longer than the window.

    Example:
        >>> remedy = Repeated(onset=20, removal=30, every_n_epochs=4)
        >>> [epoch for epoch in range(40) if remedy.is_due(epoch)]
        [20, 24, 28]
    """

    def __init__(
        self, onset: int = 0, removal: int | None = None, every_n_epochs: int | None = None
    ) -> None:
        super().__init__(onset, removal)
        name = type(self).__name__
        if every_n_epochs is not None and every_n_epochs < 1:
            raise UserError(f"{every_n_epochs=} of {name} must be at least 1.")
        if every_n_epochs is not None and removal is not None and every_n_epochs > removal - onset:
            raise UserError(
                f"{every_n_epochs=} of {name} is longer than its window, {removal - onset} epochs; "
                "leave it out to act once."
            )
        self.every_n_epochs = every_n_epochs
        self._seed, self._latest = 0, -1

    def is_due(self, epoch: int) -> bool:
        """Whether it acts in an epoch."""
        since = epoch - self.onset
        again = since if self.every_n_epochs is None else since % self.every_n_epochs
        return self.is_open(epoch) and again == 0

    def state_dict(self) -> dict[str, Any]:
        """The seed of its draws, and the epoch in which it last acted."""
        return {"seed": self._seed, "latest": self._latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after that."""
        self._seed, self._latest = state_dict["seed"], state_dict["latest"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that its window lies within the run, and takes the seed of that."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # A checkpoint's are loaded after this and stay.
            self._seed, self._latest = global_seed(), -1

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Acts where it is due and has not yet."""
        if self._takes_its_turn(trainer.current_epoch):
            with torch.no_grad():
                self.act(trainer, pl_module)

    def _takes_its_turn(self, epoch: int) -> bool:
        is_due = self.is_due(epoch) and epoch != self._latest
        if is_due:
            self._latest = epoch
        return is_due

    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Changes the weights; called without gradients."""

    def drawn_anew(self, trainer: pl.Trainer, part: nn.Module, place: int) -> nn.Module:
        """A copy of a part on the CPU, with weights as a new one of its kind has them.

        ``place`` tells the part from others that are drawn in the same epoch.
        """
        part = copy.deepcopy(part).cpu()
        with isolate_rng():
            torch.manual_seed(fold(Stream.NEW_WEIGHTS, self._seed, trainer.current_epoch, place))
            _resetting(part)()
        return part


def parts_to_draw(module: nn.Module) -> list[nn.Module]:
    """The parts in a module that have weights or buffers of their own, which torch can draw anew.

    Raises:
        UserError: one of them has weights, and no ``reset_parameters``.
    """
    found = []
    for name, part in module.named_modules():
        has_weights = any(True for _ in part.parameters(recurse=False))
        if _resetting(part) is not None:
            found += [part] if has_weights or any(True for _ in part.buffers(recurse=False)) else []
        elif has_weights:
            raise UserError(
                f"{name or 'it'} ({type(part).__name__}) has weights of its own and no "
                "reset_parameters that would draw them anew; give it one, or leave it out."
            )
    return found


def _resetting(part: nn.Module) -> Any:
    # That of torch's attention begins with an underscore.
    return getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)


def forget(trainer: pl.Trainer, parameter: Tensor, where: Any = None) -> None:
    """Has optimisers forget what they remember of a parameter, or of some places in it."""
    for optimizer in trainer.optimizers:
        # Fused steps of SGD take momentum of all parameters or of none, so there it becomes 0.
        if where is None and not isinstance(optimizer, torch.optim.SGD):
            optimizer.state.pop(parameter, None)
            continue
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[... if where is None else where] = 0
