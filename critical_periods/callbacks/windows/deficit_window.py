"""A deficit that is put into training at one epoch and taken out at another."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.callbacks.samples import example_batch
from critical_periods.callbacks.windows.strength import Strength
from critical_periods.callbacks.windows.window import Window, open_windows, windows
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.finding import find
from critical_periods.core.project import Project
from critical_periods.core.randomness import Stream, generator, global_seed
from critical_periods.core.trainer import Unit, datamodule_of
from critical_periods.deficits.deficit import Deficit, DeficitSlot


class DeficitWindow(Window):
    """Puts a deficit into training at ``onset`` and takes it out at ``removal``.

    Where the DataModule has a slot for deficits (``datamodule.deficits``, a
    :class:`~critical_periods.deficits.DeficitSlot`), the deficit goes in there. In any other
    project the window changes what ``training_step`` receives: tuples, dicts, named tuples and
    nested pairs of images and targets (:func:`.finding.find`). The data set, and
    the tensors that its loader hands out, stay as they are. Validation is touched on request
    alone; the sanity check, measurements and tests never are.

    Several windows may be open at once; their deficits act in the order of the callbacks. Random
    deficits draw from (seed, epoch, batch, rank). ``deficit/active`` is logged each epoch, or at
    each batch where a window counts steps: 1 where any window is open. What a step is, and which
    batch is the first with the deficit, says
    :class:`~critical_periods.callbacks.windows.window.Window`. Works under a Trainer of
    ``pytorch_lightning`` and of ``lightning``.

    Args:
        deficit: the change of batches.
        onset: the first epoch (or step) with the deficit.
        removal: the first one without it; ``None`` means to the end.
        validate: whether validation has the deficit too while the window is open. A random one
            draws the same in every epoch there, from (seed, batch, rank).
        unit: ``epoch`` or ``step``: what ``onset`` and ``removal`` are counted in.
        project: where inputs and target are in a third party's batches (:class:`Project`).
        strength: how strong a deficit of images is through the window, such as ``{from: 1, to: 0}``
            for one that fades (:class:`~critical_periods.callbacks.windows.strength.Strength`). It
            is mixed with the clean images, ``Blur(sigma)`` becomes narrower.

    Raises:
        UserError: strength is of another form, or of a deficit of targets; before the first step of
            training, the deficit cannot act on its batches.

    Example:
        >>> from critical_periods.deficits import Blur
        >>> window = DeficitWindow(Blur(factor=4, views=[1]), removal=60)
        >>> [window.is_open(epoch) for epoch in (0, 59, 60)]
        [True, True, False]
    """

    changes_nothing_while_closed: ClassVar[bool] = True

    def __init__(
        self,
        deficit: Deficit,
        onset: int = 0,
        removal: int | None = None,
        validate: bool = False,
        unit: Unit = "epoch",
        project: Project | None = None,
        strength: dict[str, float | bool] | None = None,
    ) -> None:
        super().__init__(onset, removal, unit)
        if strength is not None and type(deficit).forward is not Deficit.forward:
            raise UserError(
                f"strength of DeficitWindow is of deficits of images, and {type(deficit).__name__} "
                "cannot be mixed with clean ones; leave it out."
            )
        length = None if removal is None else removal - onset
        self.strength = strength
        self._course = None if strength is None or length == 0 else Strength(strength, length)
        self.deficit = deficit
        self.validate = validate
        self.project = project
        self._seed = 0
        self._batch_idx = 0
        self._is_checked = False
        self._unwrap: list[Callable[[], None]] = []

    @property
    def state_key(self) -> str:
        """What tells this window from others in a checkpoint, whatever the removal of that run."""
        steps = ", unit=step" if self.unit == "step" else ""
        return f"DeficitWindow({self.deficit}, onset={self.onset}{steps})"

    def state_dict(self) -> dict[str, Any]:
        """The seed of its draws and what its deficit has drawn once and for all."""
        return {"seed": self._seed, "deficit": self.deficit.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the seed and the deficit of the checkpoint."""
        self._seed = state_dict["seed"]
        self.deficit.load_state_dict(state_dict["deficit"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks the window against the run's epochs, and the deficit against its classes."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        # A checkpoint's seed is loaded after this and stays.
        self._seed = global_seed()
        # A third party's data may have other classes than those of the target in question.
        data = datamodule_of(trainer) if _slot(trainer) is not None else None
        available = getattr(data, "num_classes", None)
        assumed = getattr(self.deficit, "num_classes", None)
        if isinstance(available, int) and isinstance(assumed, int) and available != assumed:
            raise UserError(
                f"num_classes={assumed} of {type(self.deficit).__name__} does not fit the data, "
                f"which has {available} classes; set it to {available}."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the deficit on two training samples; wraps the steps where there is no slot."""
        self._is_checked = False
        example = example_batch(trainer)
        if example is not None:
            self._check(example)
        others = windows(trainer, DeficitWindow)
        if _slot(trainer) is None and self is others[0]:
            loaders = trainer.train_dataloader
            is_named = all(one.project and one.project.places for one in others)
            if isinstance(loaders, (list, tuple, Mapping)) and len(loaders) > 1 and not is_named:
                # One batch of theirs holds parts whose samples do not belong together.
                place = next(iter(loaders)) if isinstance(loaders, Mapping) else 0
                raise UserError(
                    f"a DeficitWindow edits the batches of one data loader, but this project "
                    f"trains on {len(loaders)} at once; let one loader give all views and their "
                    "target, or say which part of a batch is meant, such as "
                    f"Project(inputs='{place}.0', target='{place}.1')."
                )
            self._unwrap.append(_wrap_step(trainer, pl_module, "training_step"))
            if any(window.validate for window in others):
                self._unwrap.append(_wrap_step(trainer, pl_module, "validation_step"))
        super().on_train_start(trainer, pl_module)

    def switch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fills the slot, if there is one, with the deficits of the windows that are open."""
        since = self.now(trainer) - self.onset
        if self._course is not None and since >= 0:
            self.deficit.strength = self._course.at(since, self._seed)
        slot = _slot(trainer)
        if slot is not None:
            # Every window fills in the same deficits, so the order never depends on history.
            open_now = open_windows(trainer, DeficitWindow)
            deficits = [window.deficit.to(pl_module.device) for window in open_now]
            # Training goes on to the next batch, while validation is as the last one was.
            acting = [one for one in windows(trainer, DeficitWindow) if one.acts]
            slot.fill(deficits, [one.deficit for one in acting if one.validate])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remembers the number of the batch, which names the draws of a random deficit."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._batch_idx = batch_idx
        # A third party's first batch is checked only now, as taking it earlier could use up a
        # stream, and before any step, even if the window opens much later.
        if not self._is_checked:
            self._check(batch)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remembers the number of the batch."""
        self._batch_idx = batch_idx

    def _find(self, batch: Any) -> tuple[Batch, Callable[[Batch], Any]]:
        return find(batch, self.deficit.edits_target, self.project, as_images=True)

    def _check(self, batch: Any) -> None:
        found, _ = self._find(batch)
        with isolate_rng():
            self.deficit.to(found.target.device).check(found)
        self._is_checked = True

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Empties the slot, or gives the steps back to the module."""
        if self._course is not None:
            self.deficit.strength = 1.0
        slot = _slot(trainer)
        if slot is not None:
            slot.fill([])
        while self._unwrap:
            self._unwrap.pop()()

    def _draws(self, trainer: pl.Trainer, device: torch.device) -> torch.Generator:
        place = windows(trainer, DeficitWindow).index(self)
        epoch = -1 if trainer.validating else trainer.current_epoch
        key = (self._seed, epoch, self._batch_idx, trainer.global_rank, place)
        return generator(device, Stream.THIRD_PARTY_DEFICIT, *key)


def _slot(trainer: pl.Trainer) -> DeficitSlot | None:
    slot = getattr(datamodule_of(trainer), "deficits", None)
    return slot if isinstance(slot, DeficitSlot) else None


def _wrap_step(trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> Callable[[], None]:
    """Lets an instance's step receive batches with the open deficits; returns what undoes it."""
    own_step = getattr(pl_module, name)
    if "dataloader_iter" in inspect.signature(own_step).parameters:
        raise UserError(
            f"{name} of {type(pl_module).__name__} takes dataloader_iter, so no deficit can "
            "be put into its batches; let it take batch, or give its DataModule a DeficitSlot."
        )

    @functools.wraps(own_step)
    def step(batch: Any, *args: Any, **kwargs: Any) -> Any:
        # One step may call the other, and each is called outside its loop, too.
        is_due = trainer.training if name == "training_step" else trainer.validating
        for window in windows(trainer, DeficitWindow) if is_due else ():
            if window.acts and (window.validate or name == "training_step"):
                found, put_back = window._find(batch)
                deficit = window.deficit.to(found.target.device)
                batch = put_back(deficit(found, window._draws(trainer, found.target.device)))
        return own_step(batch, *args, **kwargs)

    # Lightning looks one decorator deep for the arguments that a step takes.
    step.__wrapped__ = getattr(own_step, "__wrapped__", own_step)
    is_own = name in vars(pl_module)
    setattr(pl_module, name, step)

    def unwrap() -> None:
        delattr(pl_module, name)
        if is_own:
            setattr(pl_module, name, own_step)

    return unwrap
