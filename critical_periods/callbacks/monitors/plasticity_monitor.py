"""How able to learn the network still is, through training."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.initial_weights import InitialWeights
from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.network import module_names, modules_named, name_list
from critical_periods.callbacks.samples import shared_samples
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.metrics.functional.likelihood import mean_loss
from critical_periods.metrics.functional.plasticity import (
    dormant,
    effective_rank,
    gradient_agreement,
    stable_rank,
    unit_features,
    weight_distance,
)

# Modules of torch.nn that apply a function to each number.
NONLINEAR = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish,
    nn.PReLU, nn.RReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softsign,
    nn.Tanh,
)  # fmt: skip


class PlasticityMonitor(Monitor):
    """Logs measures of a network's plasticity, each once a measurement.

    Of what each layer gives (units as in :func:`.unit_features`):

    - ``plasticity/dormant/<layer>``: the share of units whose mean |h| is at most ``threshold``
      times the layer's mean (:func:`.dormant`);
    - ``plasticity/rank/<layer>`` and ``plasticity/stable_rank/<layer>``: the effective and the
      stable rank of its features (:func:`.effective_rank`, :func:`.stable_rank`).

    Of the weights and of the gradients of the loss, in ``batches`` batches of the samples:

    - ``plasticity/distance``: from the weights at the start (:func:`.weight_distance`);
    - ``plasticity/gradient_norm``: of the mean gradient over all samples;
    - ``plasticity/gradient_confusion``: the least cosine between the gradients of two batches, and
      ``plasticity/gradient_cosine``, their mean (:func:`.gradient_agreement`).

    All processes measure the same samples. While it measures, it holds ``batches`` copies of the
    weights; checkpoints hold the initial ones.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.
        split: which samples; clean training data by default.
        samples: how many.
        layers: names of modules as ``named_modules`` of the network has them; by default all
            activation functions. What is called several times in one pass has a number behind its
            name, ``relu.0``, ``relu.1``, ….
        threshold: τ of dormant units.
        batches: into how many the samples are dealt for the gradients, at least 2.
        project: where things are in a third party's project (:class:`Project`).

    Raises:
        UserError: the threshold is negative or there is one batch; before training, a layer that
            the network does not have, no activation function among its modules, or fewer samples
            than batches.

    Example:
        >>> monitor = PlasticityMonitor(every_n_epochs=5, samples=100)
    """

    target_needed = True
    has_likelihood = True
    one_shape = True

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        split: str = "train",
        samples: int | None = 200,
        layers: Sequence[str] | None = None,
        threshold: float = 0.025,
        batches: int = 8,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        if threshold < 0:
            raise UserError(f"{threshold=} of PlasticityMonitor must not be negative.")
        if batches < 2 or (samples is not None and samples < batches):
            raise UserError(
                f"{batches=} of PlasticityMonitor must be at least 2 and at most its samples, "
                f"{samples}."
            )
        self.layers = None if layers is None else name_list("layers", self, layers)
        self.threshold = threshold
        self.num_batches = batches
        self._start = InitialWeights(self)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the weights that the run starts from."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._start.take(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The weights that the run started from."""
        return self._start.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on to measure the distance from the same ones."""
        self._start.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the layers."""
        self._start.check(trainer, pl_module)
        self._modules(self.network_of(pl_module))

    def _modules(self, network: nn.Module) -> dict[str, nn.Module]:
        inner = self._named(network)
        if self.layers is not None:
            return dict(
                zip(self.layers, modules_named("layers", self, self.layers, inner), strict=True)
            )
        found = {n: one for n, one in module_names(inner).items() if isinstance(one, NONLINEAR)}
        once = {one: name for name, one in reversed(found.items()) if "_orig_mod" not in name}
        if not once:
            raise UserError(
                f"PlasticityMonitor looks for activation functions among the modules of "
                f"{type(inner).__name__}, which has none; name modules whose outputs it is to "
                "measure in layers."
            )
        return {name: one for one, name in reversed(once.items())}

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Measures two samples, each as a batch of its own."""
        self._features(network, example)
        self._gradients(network, example, 2)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs."""
        network = self.network_of(pl_module)
        seen = shared_samples(trainer, self.split, self.samples, self.project, True)
        if len(seen.index) < self.num_batches:
            raise UserError(
                f"split={self.split!r} has {len(seen.index)} samples, which PlasticityMonitor "
                f"cannot deal into batches={self.num_batches}; set fewer."
            )
        for layer, (means, features) in self._features(network, seen).items():
            share = dormant(means, self.threshold).double().mean()
            log_scalar(pl_module, f"plasticity/dormant/{layer}", share)
            log_scalar(pl_module, f"plasticity/rank/{layer}", effective_rank(features))
            log_scalar(pl_module, f"plasticity/stable_rank/{layer}", stable_rank(features))
        pairs = self._start.of(pl_module)
        log_scalar(pl_module, "plasticity/distance", weight_distance(*zip(*pairs, strict=True)))
        gradients, sizes = self._gradients(network, seen, self.num_batches)
        mean = (sizes[:, None] * gradients).sum(0) / sizes.sum()
        least, average = gradient_agreement(gradients)
        log_scalar(pl_module, "plasticity/gradient_norm", mean.norm())
        log_scalar(pl_module, "plasticity/gradient_confusion", least)
        log_scalar(pl_module, "plasticity/gradient_cosine", average)

    def _features(self, network: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each layer the mean |h| of its units and the features, which a pass gives."""
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        with ExitStack() as hooks:
            for name, module in self._modules(network).items():
                hook = partial(_note, found, name)
                hooks.enter_context(module.register_forward_hook(hook))
            network(*batch.inputs)
        return {
            f"{name}.{call}" if len(calls) > 1 else name: one
            for name, calls in found.items()
            for call, one in enumerate(calls)
        }

    def _gradients(self, network: nn.Module, batch: Batch, parts: int) -> tuple[Tensor, Tensor]:
        """The gradients of some batches, [batches, weights], and how many samples each has."""
        weights = [one for one in network.parameters() if one.requires_grad]
        if not weights:
            raise UserError(
                "PlasticityMonitor measures gradients, but no weight of the network takes any; "
                "leave it out, or let some of them learn."
            )
        target, rows = batch.target, []
        inputs = zip(*(view.tensor_split(parts) for view in batch.inputs), strict=True)
        targets = target.tensor_split(parts)
        for seen, wanted in zip(inputs, targets, strict=True):
            with torch.enable_grad():
                loss = mean_loss(network(*seen), wanted, self.likelihood)
                row = torch.autograd.grad(loss, weights, materialize_grads=True)
            rows.append(torch.cat([one.flatten() for one in row]))
        sizes = torch.tensor([len(one) for one in targets], device=rows[0].device)
        return torch.stack(rows), sizes


def _note(
    found: dict[str, list[tuple[Tensor, Tensor]]], name: str, module: Any, args: Any, output: Any
) -> None:
    """Keeps of what a module gives in a call: mean |h| of the units [units], and the features."""
    if not isinstance(output, Tensor):
        raise UserError(
            f"layers of PlasticityMonitor names {name!r}, which gives no tensor but a "
            f"{type(output).__name__}; name one that gives a tensor."
        )
    # At once, as what comes next may overwrite it.
    output = output.detach().float()
    one = unit_features(output.abs()).mean(0), unit_features(output).clone()
    found.setdefault(name, []).append(one)
