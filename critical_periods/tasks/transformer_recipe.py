"""How transformers are trained: AdamW, a rate that scales with the batch, warm-up and cosine."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from timm.models import group_parameters
from torch import nn

from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of

# Learned tokens are added to others, as biases are.
_UNDECAYED = {"global_tokens", "mask_token", "task_embeddings"}
_REFERENCE_BATCH = 256


@dataclass(frozen=True)
class TransformerRecipe:
    """The optimiser and the learning rate of MultiMAE, by epochs and base rate.

    AdamW without weight decay on norms, biases and learned tokens; its peak rate follows the
    linear scaling rule (Goyal et al. 2017) with the global batch, that of all processes and
    accumulated steps together,

        peak = base_rate · global batch / 256;

    the rate rises linearly from 0 for ``warmup_epochs`` and falls as half a cosine to
    ``final_rate`` at ``epochs``, step by step. When fine-tuning, layers nearer to the input learn
    more slowly: the rate of layer l of L (0 the input, 1 … depth the blocks, L the classifier) is
    that times layer_decay^(L - l).

    The defaults are those of pre-training (Bachmann et al. 2022; Kleinman et al. 2023, A.7:
    epochs 800); its fine-tuning is ``epochs: 20, base_rate: 5e-4, warmup_epochs: 5, final_rate:
    1e-6, betas: [0.9, 0.999], layer_decay: 0.65``.

    Args:
        epochs: where the cosine ends; a run may stop earlier, not later. It is not taken from the
            trainer, as the rate at an epoch must not depend on where a run is stopped.
        base_rate: the peak rate of a batch of 256.
        warmup_epochs: epochs of linear rise, less than ``epochs``.
        final_rate: the rate at the end, not scaled with the batch.
        betas: of AdamW.
        weight_decay: of AdamW.
        layer_decay: the ratio of the rates of neighbouring layers.

    Example:
        >>> recipe = TransformerRecipe(epochs=10, base_rate=1e-3, warmup_epochs=2, final_rate=0)
        >>> [recipe.share(step, steps_per_epoch=1, peak=1e-3) for step in (0, 1, 2, 6, 10)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    epochs: int
    base_rate: float = 1e-4
    warmup_epochs: int = 40
    final_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        warmup = f"lie between 0 and {self.epochs - 1}, as epochs={self.epochs}"
        for name, fits, wanted in (
            ("epochs", self.epochs >= 1, "be at least 1"),
            ("base_rate", self.base_rate >= 0, "not be negative"),
            ("warmup_epochs", 0 <= self.warmup_epochs < self.epochs, warmup),
            ("final_rate", self.final_rate >= 0, "not be negative"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "lie in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "not be negative"),
            ("layer_decay", 0 < self.layer_decay <= 1, "lie in (0, 1]"),
        ):
            if not fits:
                raise UserError(f"{name}={getattr(self, name)} of TransformerRecipe must {wanted}.")

    def share(self, step: int, steps_per_epoch: int, peak: float) -> float:
        """The rate at a step of the optimiser, counted from the very start, as a share of peak."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return step / warmup
        progress = min(1.0, (step - warmup) / (self.epochs * steps_per_epoch - warmup))
        end = self.final_rate / peak if peak else 0.0
        return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2

    def configure(self, task: pl.LightningModule) -> dict[str, Any]:
        """What ``configure_optimizers`` of a task with a ``network`` gives to Lightning.

        Raises:
            UserError: the trainer has more epochs than the recipe, the data no ``batch_size``, or
                the network no layers for a ``layer_decay``; after a step, the data has no length.
        """
        trainer = task.trainer
        # A trainer without an end has -1 of them.
        if trainer.max_epochs is not None and trainer.max_epochs > self.epochs:
            raise UserError(
                f"epochs={self.epochs} of TransformerRecipe is less than "
                f"trainer.max_epochs={trainer.max_epochs}, and all later epochs would train at "
                f"final_rate={self.final_rate}; set the recipe's epochs to {trainer.max_epochs}."
            )
        peak = self.base_rate * _global_batch(trainer) / _REFERENCE_BATCH
        groups = parameter_groups(task, peak, self.weight_decay, self.layer_decay)
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=self.betas)

        def share(step: int) -> float:
            # Loaders are made later: a resumed run first restores where they were.
            return self.share(step, _steps_per_epoch(trainer) if step else 1, peak)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        by_step = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": by_step}


def parameter_groups(
    task: nn.Module, rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters by their rates and by whether they decay.

    Args:
        task: with an attribute ``network``, whose ``group_matcher`` (timm's form) says its layers,
            as ``layer_decay`` needs; parameters outside the network count as its top layer.
        rate: of the top layer.
        weight_decay: of matrices; norms, biases and learned tokens have none.
        layer_decay: the ratio of the rates of neighbouring layers.

    Example:
        >>> from critical_periods.models import MultiViewTransformer
        >>> task = nn.Module()
        >>> task.network = MultiViewTransformer(width=8, depth=2, heads=2)
        >>> groups = parameter_groups(task, 1.0, weight_decay=0.05, layer_decay=0.5)
        >>> sorted({group["lr"] for group in groups})  # input, two blocks, classifier
        [0.125, 0.25, 0.5, 1.0]
    """
    network = task.get_submodule("network")
    matcher = getattr(network, "group_matcher", None)
    if matcher is None and layer_decay < 1:
        raise UserError(
            f"layer_decay={layer_decay} needs a network that says its layers, such as "
            f"MultiViewTransformer, but this is {type(network).__name__}; set it to 1."
        )
    layers = group_parameters(network, matcher(), reverse=True) if matcher else {}
    top = max(layers.values(), default=0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            layer = layers.get(name.removeprefix("network."), top)
            decays = parameter.ndim > 1 and _UNDECAYED.isdisjoint(name.split("."))
            groups[rate * layer_decay ** (top - layer), decays].append(parameter)
    return [
        {"params": parameters, "lr": own_rate, "weight_decay": weight_decay if decays else 0.0}
        for (own_rate, decays), parameters in groups.items()
    ]


def _global_batch(trainer: pl.Trainer) -> int:
    size = getattr(datamodule_of(trainer), "batch_size", None)
    if size is None:
        raise UserError(
            "the rate of TransformerRecipe scales with the batch, but the data has no attribute "
            "batch_size; give a LightningDataModule that has."
        )
    return int(size) * trainer.world_size * trainer.accumulate_grad_batches


def _steps_per_epoch(trainer: pl.Trainer) -> int:
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        raise UserError(
            "the rate of TransformerRecipe follows the epochs, but the training data has no "
            "length; set trainer.limit_train_batches."
        )
    return max(1, math.ceil(batches / trainer.accumulate_grad_batches))
