"""What all monitors share: when they measure, on what, and how they leave training as it was."""

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from critical_periods.callbacks.kept_batches import (
    KeptBatches,
    check_size,
    kept_batches,
    load,
    save,
)
from critical_periods.callbacks.monitors.likelihoods import check_fit, known_classes
from critical_periods.callbacks.monitors.undisturbed import undisturbed
from critical_periods.callbacks.network import (
    answering,
    check_call,
    computes_more,
    heads_on,
    network_of,
)
from critical_periods.callbacks.samples import (
    check_one_shape,
    example_batch,
    measurement_batches,
    number_dealt,
    prepare_split,
)
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, near, reason
from critical_periods.core.finding import find
from critical_periods.core.internals import stops_before_monitors, under_both_names
from critical_periods.core.project import Likelihood, Project
from critical_periods.core.trainer import callbacks_of, is_a
from critical_periods.tasks.task import Task


@under_both_names
class Monitor(pl.Callback):
    """A callback that measures the network at the end of some epochs and logs what it finds.

    It measures the module's attribute ``network``, or, in a project without one, the module
    itself, which is also measured where its ``forward`` does more than the network (normalises,
    say): whatever takes one tensor a view. ``project`` may say otherwise. Modes, gradients,
    buffers, attributes, autocast and random state of the training are as they were before, and
    compiled code is neither run nor compiled anew: a compiled network is measured by its original
    code.

    A third party's training loader is never asked for a batch. The monitors keep those that go by
    in the first epoch, as ``training_step`` receives them where no deficit is open (as augmented,
    and mixed up, as they are trained on), until there are ``samples`` of them; each measurement is
    of the same ones. They lie in main memory, once for all monitors, each process its own, and in
    the checkpoint (at 200 images of 3x224x224, 115 MiB), with which a run goes on to measure
    what it would have measured. Where a checkpoint of another number of processes, or of other
    monitors, does not have them, they are kept anew from where the run goes on. Without a number of
    ``samples`` all of the epoch are kept, of at most 256 MiB.

    Args:
        every_n_epochs: the cadence; the last epoch (by ``max_epochs``, by ``max_steps``, or as a
            validation has stopped the training) is always measured, and by default it alone.
        split: which samples: ``train`` (clean where the DataModule is one of this package; see
            above for others), ``val`` (of others, from a copy of their loader, or, where it cannot
            be copied, of the latest validation) or ``test``.
        samples: how many of them, over all processes; all by default.
        project: where inputs, target, network and logits are in a project that is not of this
            package.

    Raises:
        UserError: the cadence or the number of samples is less than 1; before training, there are
            fewer samples than processes or no data loader of the split, another monitor logs the
            same names, EarlyStopping would hide the last epoch, too much would have to be kept, or
            a dry run fails; later, the split has come to its end without a sample.
    """

    target_needed: ClassVar[bool] = False
    """Whether it measures targets, too."""
    has_likelihood: ClassVar[bool] = False
    """Whether it measures what the outputs say about targets."""
    one_shape: bool = False
    """Whether it measures samples of one shape alone."""

    def __init__(
        self,
        every_n_epochs: int | None = None,
        split: str = "val",
        samples: int | None = None,
        project: Project | None = None,
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("samples", samples)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} of {type(self).__name__} must be at least 1.")
        if split not in ("train", "val", "test"):
            raise UserError(
                f"split={split!r} of {type(self).__name__} is unknown; "
                f"{near(split, ['train', 'val', 'test'])}"
            )
        self.every_n_epochs = every_n_epochs
        self.split = split
        self.samples = samples
        self.project = project
        self._is_validated = False
        self._by_forward = self._is_watched = False
        self._heads: list[str] = []
        self._end_heads = ExitStack()

    @property
    def logs(self) -> set[str]:
        """The part of its names in the log that no other monitor of its class may use."""
        return {""}

    @property
    def takes(self) -> dict[str, tuple[str, float]]:
        """The setting of how many samples of each split it measures, and how many that is."""
        return {self.split: ("samples", math.inf if self.samples is None else self.samples)}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that other callbacks suit, and that every process has a sample to measure."""
        if stage == "fit":
            self._by_forward = False  # of an earlier fit
            self._validate_other_callbacks(trainer)
            kept_batches(trainer).clear()
        if self.samples is not None and self.samples < trainer.world_size:
            raise UserError(
                f"samples={self.samples} of {type(self).__name__} cannot be shared by "
                f"{trainer.world_size} processes; choose at least {trainer.world_size}."
            )

    def _validate_other_callbacks(self, trainer: pl.Trainer) -> None:
        name = type(self).__name__
        for other in callbacks_of(trainer):
            if other is self:
                continue
            if type(other) is type(self) and other.logs & self.logs:
                raise UserError(
                    f"two callbacks of the class {name} would log under the same names, of which "
                    "Lightning keeps the mean alone; leave one out."
                )
            stops = is_a("EarlyStopping", other)
            if stops and self.every_n_epochs != 1 and stops_before_monitors(other, trainer):
                raise UserError(
                    f"EarlyStopping would stop after {name} has looked, which would not see the "
                    "last epoch; set check_on_train_epoch_end of EarlyStopping to False, or "
                    f"every_n_epochs of {name} to 1."
                )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the training batches of a third party's project that it measures."""
        save(trainer, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on with the training batches of the checkpoint."""
        load(trainer, checkpoint, _wanted(_takers(trainer, "train"), "train"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures two samples for a dry run, as the first measurement may be due hours later."""
        self._is_watched = False
        for split in self.takes:
            prepare_split(trainer, split, self.project)
        self._validate_validation(trainer)
        where = (trainer, self.split, self.project, self.target_needed)
        alike = self.one_shape
        example = example_batch(*where, alike)
        self._is_validated = example is not None
        if example is not None:
            self.dry_run(pl_module, example.first(2), example.target)
            # Only the outputs may have told that.
            if self.one_shape and not alike:
                example_batch(*where, self.one_shape)

    def _validate_validation(self, trainer: pl.Trainer) -> None:
        """Checks that the first validation comes before what is measured of it, as it goes by."""
        cadence, ends = trainer.check_val_every_n_epoch, trainer.max_epochs or -1
        due = [epochs for epochs in (self.every_n_epochs, ends) if epochs and epochs > 0]
        goes_by = "val" in self.takes and "val" in kept_batches(trainer)
        if goes_by and cadence and due and min(due) < cadence:
            raise UserError(
                f"{type(self).__name__} measures the split 'val' after {min(due)} epochs, but it "
                f"is read only in validation, first after {cadence}, as its data loader cannot be "
                f"copied; set every_n_epochs to {cadence}, or choose split='train'."
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The dry run on a third party's first batch, before a step has been taken."""
        if not self._is_validated:
            self._is_validated = True
            found, _ = find(batch, self.target_needed, self.project)
            self.dry_run(pl_module, found.first(2), found.target)
        self._keep(trainer, "train", batch)
        network, project = self.network_of(pl_module), self.project or Project()
        is_said = project.network is not None or project.logits is not None
        if self.has_likelihood and not (self._is_watched or is_said or isinstance(pl_module, Task)):
            self._heads, self._end_heads = heads_on(pl_module, network)
        self._is_watched = True

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Refuses a network whose output the first step has given to a head."""
        self._validate_heads(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """The same of a step without a backward pass of Lightning's."""
        self._validate_heads(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Looks no longer."""
        self._end_heads.close()

    def _validate_heads(self, pl_module: pl.LightningModule) -> None:
        self._end_heads.close()
        for name in self._heads:
            raise UserError(
                f"{type(self).__name__} would measure the attribute network of "
                f"{type(pl_module).__name__} as a classifier, but training gives what it returns "
                f"to {name!r}; give {type(pl_module).__name__} a forward that returns the logits, "
                "or say what is to be measured, such as Project(network='network')."
            )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the latest validation where its batches can be had only as they go by."""
        if not trainer.sanity_checking and "val" in kept_batches(trainer):
            kept_batches(trainer)["val"] = KeptBatches()

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Likewise."""
        if not trainer.sanity_checking:
            self._keep(trainer, "val", batch)

    def _keep(self, trainer: pl.Trainer, split: str, batch: Any) -> None:
        """Keeps a batch for all monitors of the split, of which the first does it."""
        kept = kept_batches(trainer).get(split)
        if kept is None or kept.is_complete:
            return
        takers = _takers(trainer, split)
        if not takers or takers[0] is not self:
            return
        kept.wanted = _wanted(takers, split)
        for one in takers if not kept.batches else ():
            setting, wanted = one.takes[split]
            if wanted == math.inf:
                check_size(trainer, split, batch, one, setting)
        found, _ = find(batch, project=self.project)
        if kept.batches and any(one.one_shape for one in takers):
            check_one_shape(split, [find(kept.batches[0], project=self.project)[0], found])
        kept.add(trainer, batch, len(found.index), number_dealt(kept.wanted, trainer))

    def dry_run(
        self, pl_module: pl.LightningModule, example: Batch, target: Tensor | None = None
    ) -> None:
        """Measures a batch and logs nothing, to raise before training what would fail later.

        ``target`` is that of more samples, which are only looked at.
        """
        if any(is_lazy(parameter) for parameter in pl_module.parameters()):
            # The first call draws the weights, which is for training to do.
            pl_module = copy.deepcopy(pl_module)
            network = network_of(pl_module, self.project)
            with isolate_rng(), torch.no_grad(), answering(network, self.project):
                network(*example.inputs)
        with undisturbed(pl_module):
            self._by_forward = computes_more(pl_module, self.project, example.inputs)
        network = self.network_of(pl_module)
        check_call(network, example.inputs)
        with (
            self._telling(pl_module, network),
            undisturbed(pl_module),
            answering(network, self.project),
        ):
            if self.has_likelihood:
                self._check_fit(pl_module, network, example, target)
            self.measure_example(network, example)

    def _check_fit(
        self,
        pl_module: pl.LightningModule,
        network: nn.Module,
        example: Batch,
        target: Tensor | None,
    ) -> None:
        project = self.project or Project()
        says_network = project.network is not None or project.logits is not None
        targets = example.target if target is None else target
        if project.network is not None and project.target is None and not self.target_needed:
            # That of the module need not be that of a module in it.
            targets = targets[:0]
        known = {} if says_network else known_classes(pl_module, network)
        check_fit(network, example, targets, self.likelihood, self.target_needed, known)

    @contextmanager
    def _telling(self, pl_module: pl.LightningModule, network: nn.Module) -> Iterator[None]:
        """Tells in a sentence what a third party's network, or torch, cannot do."""
        try:
            yield
        except (UserError, OSError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            is_other = self.project is not None and self.project.network is not None
            named = f"its module {self.project.network!r}" if self.project and is_other else ""
            what = "the module itself" if network is pl_module else named or "its attribute network"
            draws = "it draws random numbers in evaluation mode"
            told = draws if "randomness error mode" in str(error) else reason(error)
            raise UserError(
                f"{type(self).__name__} cannot measure {type(pl_module).__name__} ({what}) on what "
                f"the split {self.split!r} gives: {told}; it has to take one tensor "
                "[B, ...] a view and to go through torch.func."
            ) from error

    def network_of(self, pl_module: pl.LightningModule) -> nn.Module:
        """What is measured of a module."""
        return pl_module if self._by_forward else network_of(pl_module, self.project)

    def _named(self, network: nn.Module) -> nn.Module:
        """Where the layers' names are of, which is a part of what is measured."""
        return network.get_submodule("network") if self._by_forward else network

    @property
    def likelihood(self) -> Likelihood:
        """Of the targets, given the network's outputs."""
        return "categorical" if self.project is None else self.project.likelihood

    def batches(self, trainer: pl.Trainer) -> Iterator[Batch]:
        """What is measured of the data: the share of this process."""
        where = (self.project, self.target_needed)
        yield from measurement_batches(trainer, self.split, self.samples, False, *where)

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Measures two samples and forgets them; a monitor of special tasks alone need not."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures where the cadence asks for it."""
        if "train" in kept_batches(trainer):
            kept_batches(trainer)["train"].complete(trainer)
        done = trainer.current_epoch + 1
        due = self.every_n_epochs is not None and done % self.every_n_epochs == 0
        # Training also ends by its steps, or where something like EarlyStopping asks for it.
        is_last = (
            done == trainer.max_epochs
            or 0 <= trainer.max_steps <= trainer.global_step
            or trainer.should_stop
        )
        if due or is_last:
            with self.measuring(pl_module):
                self.measure(trainer, pl_module)

    @contextmanager
    def measuring(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """What a measurement is taken in: evaluation mode, of which training notices nothing."""
        network = self.network_of(pl_module)
        # The first batch has been tried, but others may have other shapes.
        with (
            self._telling(pl_module, network),
            undisturbed(pl_module),
            answering(network, self.project),
        ):
            yield

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs; called in evaluation mode and without gradients."""
        raise NotImplementedError


def _takers(trainer: pl.Trainer, split: str) -> list[Monitor]:
    """The monitors that measure a split."""
    found = [one for one in callbacks_of(trainer) if isinstance(one, Monitor)]
    return [one for one in found if split in one.takes]


def _wanted(takers: list[Monitor], split: str) -> float:
    """How many samples of it they measure, over all processes together."""
    return max((one.takes[split][1] for one in takers), default=0)


def log_scalar(pl_module: pl.LightningModule, key: str, value: Tensor) -> None:
    """Logs a number that all processes have computed alike."""
    pl_module.log(key, value.to(torch.float32), sync_dist=True)
