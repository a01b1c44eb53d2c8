"""Classification of the views of a sample, the task of the papers."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.internals import milestones
from critical_periods.core.trainer import datamodule_of, ends_before, processes_of, trainer_of
from critical_periods.data.last_batch import validate_last_batch
from critical_periods.models.heads import own_head
from critical_periods.models.network import Network
from critical_periods.tasks.dry_run import fails_on_one_sample, validate_network, validate_schedule
from critical_periods.tasks.optimizers import build, build_optimizer
from critical_periods.tasks.task import Task


def _paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


class ClassificationTask(Task):
    """Cross-entropy on the views of a batch, with accuracy on clean ones.

    Logs ``train/loss``, ``val/loss``, ``val/accuracy`` and ``test/loss``, ``test/accuracy`` once
    an epoch. The learning rate follows the scheduler once an epoch, from the very first epoch on
    (Kleinman et al. 2023: it is never reset when a deficit ends). Dropout and the like are seeded
    anew at each batch from (seed, epoch, batch, rank), so that a resumed run has the same bits.

    A network with several heads (``heads: [both, 0, 1]``) trains the one that each sample's target
    belongs to, and answers with the head for both in evaluation and prediction (Kleinman et al.
    2023, A.6).

    Args:
        network: takes one tensor [B, C, H, W] a view and returns logits [B, num_classes], or
            [B, heads, num_classes] with an attribute ``heads``.
        num_classes: K.
        optimizer: from parameters to an optimiser; by default SGD at 0.05, momentum 0.9, weight
            decay 5e-4.
        lr_scheduler: from the optimiser to a scheduler stepped once an epoch; none by default,
            which is a fixed rate. One that follows a measure is named in full,
            ``pytorch_lightning.cli.ReduceLROnPlateau``, with its ``monitor``.
        label_smoothing: ε in [0, 1], which moves targets to (1 - ε) target + ε / K in training.

    Example:
        >>> class Linear(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = nn.Linear(64, 10)
        ...     def forward(self, view):
        ...         return self.head(view.flatten(1))
        >>> task = ClassificationTask(Linear())
        >>> task(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    logged = (*Task.logged, "val/accuracy")

    def __init__(
        self,
        network: Network | nn.Module,
        num_classes: int = 10,
        optimizer: OptimizerCallable = _paper_optimizer,
        lr_scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(
                f"label_smoothing={label_smoothing} of {type(self).__name__} must lie in [0, 1]."
            )
        # Convolutions run fastest channels last, on CPUs with bf16 units above all.
        self.network = network.to(memory_format=torch.channels_last)
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_smoothing = label_smoothing
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def setup(self, stage: str) -> None:
        """Raises a UserError where the network cannot take the data's views, or K does not fit."""
        data = datamodule_of(self.trainer)
        available = getattr(data, "num_classes", None)
        if available is not None and available > self.num_classes:
            raise UserError(
                f"num_classes={self.num_classes} of {type(self).__name__} is less than the "
                f"{available} classes of the data; set it, and the network's, to {available}."
            )
        if stage == "fit":
            if available == 1:
                raise UserError(
                    f"all samples of {type(data).__name__} are of one class, so that nothing can "
                    "be learned; look whether its folders or lists name the classes."
                )
            validate_network(self, data, self.num_classes)

    def on_fit_start(self) -> None:
        """Raises a UserError where epochs end with one sample that the network cannot train on."""
        super().on_fit_start()
        data, name = datamodule_of(self.trainer), type(self.network).__name__
        fails = partial(fails_on_one_sample, self, data)
        validate_last_batch(name, self.trainer, data, processes_of(self.trainer), fails)

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, K] of one tensor [B, C, H, W] a view, by the head for both where several."""
        return own_head(self.network, self._answers(views))

    def _answers(self, views: Iterable[Tensor]) -> Tensor:
        """What the network gives: [B, K], or [B, heads, K] with several heads."""
        return self.network(*(view.contiguous(memory_format=torch.channels_last) for view in views))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean cross-entropy of the batch, each sample by the head of its target."""
        answers = self._answers(batch.views.unbind(1))
        logits = own_head(self.network, answers, batch.target_view)
        target = batch.target
        if target.ndim > 1:
            # The network may know more classes than the data has.
            target = F.pad(target, (0, logits.shape[1] - target.shape[1]))
        loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        self.log_mean("train/loss", loss.detach(), len(target), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy on the validation split."""
        self._evaluate("val", self.val_loss, self.val_accuracy, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy on the test split."""
        self._evaluate("test", self.test_loss, self.test_accuracy, batch)

    def _evaluate(self, stage: str, loss: Metric, accuracy: Metric, batch: Batch) -> None:
        crops = self._crops
        logits = _over_crops(self(*batch.views.unbind(1)).float(), crops)
        target = batch.target[::crops]
        loss.update(F.cross_entropy(logits, target, reduction="none"))
        accuracy.update(logits, target)
        self.log_mean(f"{stage}/loss", loss, len(logits))
        self.log_mean(f"{stage}/accuracy", accuracy, len(logits), prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Class probabilities [B, K]."""
        return _over_crops(self(*batch.views.unbind(1)).float(), self._crops).softmax(dim=1)

    @property
    def _crops(self) -> int:
        """How many neighbours in a batch of evaluation are crops of one sample."""
        data = datamodule_of(trainer) if (trainer := trainer_of(self)) is not None else None
        return getattr(data, "crops", 1)

    def configure_optimizers(self) -> Any:
        """The optimiser, and its scheduler stepped once an epoch.

        Raises:
            UserError: they cannot go through all epochs, or no epoch reaches a milestone.
        """
        trainer = trainer_of(self)
        # A segment of a study, or a run without an end, has no more epochs than it says.
        epochs = max(1, trainer.max_epochs or 1) if trainer is not None else 1
        validate_schedule(self.optimizer, self.lr_scheduler, epochs)
        optimizer = build_optimizer(self.optimizer, self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = build("lr_scheduler", self.lr_scheduler, optimizer)
        found = milestones(scheduler)
        if found and trainer is not None and ends_before(trainer, found[-1] + 1):
            raise UserError(
                f"milestones={found} of {type(scheduler).__name__} reach beyond the last epoch of "
                f"training: trainer.max_epochs={trainer.max_epochs}."
            )
        # One that follows a measure says which; Lightning has to hear it, too.
        followed = {"monitor": scheduler.monitor} if hasattr(scheduler, "monitor") else {}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **followed}}


def _over_crops(logits: Tensor, crops: int) -> Tensor:
    """Logits of the mean probabilities of each sample's crops."""
    if crops == 1:
        return logits
    return logits.softmax(dim=1).unflatten(0, (-1, crops)).mean(dim=1).log()
