"""What squeeze-and-excitation blocks let through, for right and for wrong answers."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.monitors.likelihoods import check_one_class
from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.monitors.pictures import keep_figure
from critical_periods.callbacks.network import modules_named, name_list
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.metrics.functional.maps import enlarged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("right", "wrong")


class ExcitationMonitor(Monitor):
    """Logs the gates of squeeze-and-excitation blocks, and draws what they let through.

    A block takes x and gives y_k = s_k x_k, with a gate s_k in (0, 1) for each channel k (Hu et al.
    2018); its map is the mean of |y_k| over channels. Both are taken of the samples whose largest
    softmax probability exceeds ``confidence``, those with right and those with wrong answers apart
    (Huang et al. 2023, Fig. 6 to 10). A channel that is zero everywhere tells nothing of its gate,
    and is left out. Logged, for ``right`` and ``wrong``:

    - ``excitation/right``: which share of all samples these are;
    - ``excitation/<layer>/right``: the mean of the gates;
    - ``excitation/<layer>/right_spread``: the standard deviation over channels of their means.

    The mean maps, and the mean picture of the same samples, go to
    ``<log_dir>/excitation/epoch_<epoch>.png``. Where there are no such samples, nothing is logged.

    Args:
        layers: names of the blocks, as ``named_modules`` of the network has them, such as
            ``model.layer1.0.se``.
        confidence: what the largest probability must exceed.
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples.
        samples: how many, over all processes together; all by default.
        project: where things are in a third party's project.

    Raises:
        UserError: the confidence is not in [0, 1); before training, a layer does not exist or is no
            such block, or targets are not one class each.

    Example:
        >>> monitor = ExcitationMonitor(["model.layer4.1.se"], confidence=0.9)
    """

    target_needed = True
    has_likelihood = True
    one_shape = True

    def __init__(
        self,
        layers: Sequence[str],
        confidence: float = 0.9,
        every_n_epochs: int | None = None,
        split: str = "val",
        samples: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        if not 0 <= confidence < 1:
            raise UserError(f"confidence={confidence} of ExcitationMonitor must lie in [0, 1).")
        self.layers, self.confidence = name_list("layers", self, layers), confidence

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Looks whether the layers are blocks that scale each channel by a number."""
        check_one_class(self, example)
        self._observe(network, example)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the gates, and draws the maps."""
        network = self.network_of(pl_module)
        sums: dict[tuple[str, str], Tensor] = {}
        count = torch.zeros((), device=pl_module.device)
        for batch in self.batches(trainer):
            probabilities, seen = self._observe(network, batch)
            chance, answer = probabilities.max(1)
            right = answer == batch.target
            for kind, chosen in zip(_KINDS, (right, ~right), strict=True):
                mask = ((chance > self.confidence) & chosen).float()
                for name, values in {**seen, "number": torch.ones_like(mask)}.items():
                    total = torch.tensordot(mask, values.float(), dims=1)
                    sums[kind, name] = sums.get((kind, name), 0) + total
            count += len(right)
        summed = {key: trainer.strategy.reduce(of, reduce_op="sum") for key, of in sums.items()}
        count = trainer.strategy.reduce(count, reduce_op="sum")
        means: dict[str, dict[str, Tensor]] = {}
        for kind in _KINDS:
            number: Any = summed[kind, "number"]
            log_scalar(pl_module, f"excitation/{kind}", number / count)
            if number == 0:
                continue
            means[kind] = {name: of / number for (k, name), of in summed.items() if k == kind}
            for layer in self.layers:
                known = means[kind][f"{layer}/known"]
                gates = (means[kind][f"{layer}/gates"] / known)[known > 0]
                log_scalar(pl_module, f"excitation/{layer}/{kind}", gates.mean())
                spread = gates.std(correction=0)
                log_scalar(pl_module, f"excitation/{layer}/{kind}_spread", spread)
        keep_figure(trainer, "excitation", self._draw(means))

    def _observe(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Probabilities, and for each layer its gates [B, K], which of them are known, and maps.

        Maps are [B, H, W], and so are the pictures.
        """
        seen = {"picture": batch.inputs[0].mean(1)}
        with ExitStack() as hooks:
            found = modules_named("layers", self, self.layers, self._named(network))
            for name, module in zip(self.layers, found, strict=True):
                hook = partial(self._note, seen, name, batch)
                hooks.enter_context(module.register_forward_hook(hook))
            logits = network(*batch.inputs)
        return logits.softmax(1), seen

    def _note(
        self, seen: dict[str, Tensor], name: str, batch: Batch, module: Any, args: Any, output: Any
    ) -> None:
        given = args[0]
        is_block = isinstance(output, Tensor) and output.ndim == 4 and output.shape == given.shape
        if is_block:
            squares = given.square().sum((2, 3))
            # Of y = s x; what is zero everywhere tells nothing of its gate.
            known = squares > 1e-12
            gates = torch.where(known, (given * output).sum((2, 3)) / squares, 0.0)
            error = (gates[:, :, None, None] * given - output).abs().max()
            is_block = bool(error <= 0.01 * output.abs().max())
        if not is_block:
            raise UserError(
                f"layers of ExcitationMonitor names {name!r} ({type(module).__name__}), which does "
                "not scale each channel by a number, as a squeeze-and-excitation block does."
            )
        seen[f"{name}/gates"], seen[f"{name}/known"] = gates, known
        seen[f"{name}/map"] = enlarged(output.abs().mean(1), batch.inputs[0])

    def _draw(self, means: dict[str, dict[str, Tensor]]) -> "Figure":
        from matplotlib.figure import Figure

        names = ["picture", *(f"{layer}/map" for layer in self.layers)]
        figure = Figure(figsize=(2 * len(names), 4.4), layout="constrained")
        for row, kind in enumerate(_KINDS):
            for column, name in enumerate(names):
                axis = figure.add_subplot(2, len(names), row * len(names) + column + 1)
                axis.set(xticks=[], yticks=[], title=f"{name.removesuffix('/map')}, {kind}")
                axis.title.set_fontsize(7)
                if kind in means:
                    look = "gray" if name == "picture" else "viridis"
                    axis.imshow(means[kind][name].cpu(), cmap=look)
        return figure
