"""Relative source variance through training: which view each unit depends on."""

import math
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor, nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.monitors.undisturbed import reestimated_batch_norm
from critical_periods.callbacks.network import (
    module_names,
    modules_named,
    name_list,
    network_of,
)
from critical_periods.callbacks.samples import measurement_batches, shared_samples
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.core.project import Project
from critical_periods.core.trainer import callbacks_of, log_media, results_folder
from critical_periods.metrics.functional.plasticity import unit_features
from critical_periods.metrics.functional.rsv_summary import (
    dead_units,
    polarization,
    rsv_histogram,
)
from critical_periods.metrics.rsv import RelativeSourceVariance
from critical_periods.models.split import SplitNetwork


class SourceVarianceMonitor(Monitor):
    """Logs the distribution of Relative Source Variance of named layers.

    RSV = (SV(A) - SV(B)) / (SV(A) + SV(B)): **+1 is a unit that varies with view 0 (left) alone,
    -1 one that varies with view 1 (right) alone**, by the definition of Kleinman et al. 2023,
    section 3 (whose Fig. 4 shows the opposite sign). Units are every channel and position of a
    layer's output, and, since zero-padded crops polarise units at the border even without a
    deficit, channels averaged over positions as well. For each layer it logs

    - ``rsv/<layer>``: the histogram of all units and fixed pairs, 40 bins;
    - ``rsv/<layer>/mean`` (signed) and ``rsv/<layer>/polarization`` (share with ``|RSV| > 0.5``);
    - ``rsv/<layer>/dead``: share of units and pairs without any variance, which are left out;
    - ``rsv/<layer>/channels/mean``, ``…/polarization`` and the histogram ``rsv/<layer>/channels``.

    The arrays go to ``<log_dir>/rsv/epoch_<epoch>.npz``: ``<layer>/counts``, ``<layer>/edges`` and
    ``<layer>/units`` (each unit's mean over the pairs), and the same of the channels. With more
    than two views it logs each view's share of the variance instead (A.2),
    ``rsv/<layer>/view_<v>``.

    Args:
        layers: names of modules inside the network, such as ``trunk.stage4``.
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples.
        samples: draws of the varied view, over all processes together; all by default.
        pairs: fixed samples, the same in every process, run and epoch.
        reestimate_batch_norm: whether to re-estimate the batch-norm statistics on clean training
            data first, as the authors did. Training keeps its own.
        project: where things are in a third party's project (:class:`Project`).

    Raises:
        UserError: before training, the network does not have a layer, or not call it exactly once,
            or it puts out anything but a tensor of samples; the data has one view.

    Example:
        >>> monitor = SourceVarianceMonitor(layers=["trunk.stage4"], samples=500, pairs=20)
    """

    one_shape = True

    def __init__(
        self,
        layers: Sequence[str],
        every_n_epochs: int | None = None,
        split: str = "val",
        samples: int | None = None,
        pairs: int = 100,
        reestimate_batch_norm: bool = False,
        project: Project | None = None,
    ) -> None:
        super().__init__(every_n_epochs, split, samples, project)
        if pairs < 1:
            raise UserError(f"pairs={pairs} of SourceVarianceMonitor must be at least 1.")
        self.layers = name_list("layers", self, layers)
        self.pairs = pairs
        self.reestimate_batch_norm = reestimate_batch_norm
        self._measured: tuple[int, dict[str, Any]] = -1, {}

    @property
    def logs(self) -> set[str]:
        """The layers: two monitors may log different ones."""
        return set(self.layers)

    @property
    def takes(self) -> dict[str, tuple[str, float]]:
        """All of the training split, too, where it re-estimates."""
        setting, samples = super().takes[self.split]
        taken = {self.split: (setting, max(samples, self.pairs))}
        if self.reestimate_batch_norm:
            taken["train"] = ("reestimate_batch_norm", math.inf)
        return taken

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that the network, which is built by now, has the layers."""
        modules_named("layers", self, self.layers, network_of(pl_module, self.project))
        self._measured = -1, {}

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Checks on two samples that each layer gives its outputs once, sample by sample."""
        views = list(example.inputs)
        if len(views) < 2:
            raise UserError(
                "SourceVarianceMonitor compares what views do to a network, but the data has one."
            )
        calls: Counter[str] = Counter()
        with recording(self._named(network), self.layers, calls) as recorded:
            network(*views)
        for layer in self.layers:
            if calls[layer] == 1 and len(recorded[layer]) == len(views[0]):
                continue
            often = f"calls {calls[layer]} times" if calls[layer] else "does not call"
            problem = f"the network has but {often} in a forward pass"
            if calls[layer] == 1:
                shape = list(recorded[layer].shape)
                problem = f"puts out {shape} for {len(views[0])} samples, which have to come first"
            raise UserError(
                f"layers of SourceVarianceMonitor names {layer!r}, which {problem}; choose a "
                "module inside it or around it."
            )

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the distributions."""
        network = self.network_of(pl_module)
        with ExitStack() as stack:
            if self.reestimate_batch_norm:
                clean = measurement_batches(trainer, "train", None, True, self.project)
                average = partial(trainer.strategy.reduce, reduce_op="mean")
                stack.enter_context(reestimated_batch_norm(network, clean, average))
            recorded = stack.enter_context(recording(self._named(network), self.layers))
            encode, decode = _halves(network, self.layers)

            def function(*features: Tensor) -> dict[str, Tensor]:
                decode(*features)
                # In the order of the layers, not of the forward pass.
                names = [name for layer in self.layers for name in (layer, f"{layer}/channels")]
                return {name: recorded[name] for name in names if name in recorded}

            pairs = shared_samples(trainer, self.split, self.pairs, self.project)
            fixed = encode(list(pairs.inputs))
            metric = RelativeSourceVariance(function, fixed)
            for batch in self.batches(trainer):
                metric.update(*encode(list(batch.inputs)))
            result = metric.compute()
        assert isinstance(result, dict)
        self._report(trainer, pl_module, result, views=len(fixed))

    def _report(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, rsv: dict[str, Tensor], views: int
    ) -> None:
        arrays: dict[str, Any] = {}
        for name, values in rsv.items():
            key = f"rsv/{name}"
            log_scalar(pl_module, f"{key}/dead", dead_units(values) / values.numel())
            if views > 2:
                for view in range(views):
                    log_scalar(pl_module, f"{key}/view_{view}", values[view].nanmean())
                continue
            log_scalar(pl_module, f"{key}/mean", values.nanmean())
            log_scalar(pl_module, f"{key}/polarization", polarization(values))
            counts, edges = rsv_histogram(values)
            units = values.nanmean(dim=0).float()
            for part, array in (("counts", counts), ("edges", edges), ("units", units)):
                arrays[f"{name}/{part}"] = array.cpu().numpy()
        self._measured = trainer.current_epoch, arrays
        folder = results_folder(trainer, "rsv")
        if arrays and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"epoch_{trainer.current_epoch:04d}.npz"
            # Monitors of other layers write to the same file.
            ours = (one for one in callbacks_of(trainer) if isinstance(one, SourceVarianceMonitor))
            measured = (one._measured for one in ours)
            together = ChainMap(*(of for epoch, of in measured if epoch == trainer.current_epoch))
            with replacing(path) as beside, beside.open("wb") as file:
                np.savez_compressed(file, **together)
            log_media(
                trainer, {f"rsv/{n}": (arrays[f"{n}/counts"], arrays[f"{n}/edges"]) for n in rsv}
            )


@contextmanager
def recording(
    network: nn.Module, layers: Sequence[str], calls: Counter[str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Keeps what layers put out in the latest forward pass, and counts how often they are called.

    Yields:
        ``{"<layer>": [B, *units], "<layer>/channels": [B, C], …}``.
    """
    outputs: dict[str, Tensor] = {}

    def keep(layer: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise UserError(
                f"the layer {layer!r} puts out a {type(output).__name__}, not a tensor; choose a "
                "layer inside it or after it."
            )
        if calls is not None:
            calls[layer] += 1
        # A copy, as an in-place activation may follow.
        outputs[layer] = output.detach().clone()
        if output.ndim > 2:
            outputs[f"{layer}/channels"] = unit_features(output.detach())

    with ExitStack() as stack:
        names = module_names(network)
        for layer in layers:
            handle = names[layer].register_forward_hook(partial(keep, layer))
            stack.enter_context(handle)
        yield outputs


def _halves(
    network: nn.Module, layers: Sequence[str]
) -> tuple[Callable[[list[Tensor]], list[Tensor]], Callable[..., Any]]:
    """What a network does to each view alone (nothing, unless it is split), and to all together.

    A split network encodes each sample once, not once for every pair, if the layers come later.
    """
    in_pathway = any(layer.split(".")[0] == "pathways" for layer in layers)
    # In a network of a third party the names may mean something else.
    if not isinstance(network, SplitNetwork) or in_pathway:
        return list, network

    def encode(views: list[Tensor]) -> list[Tensor]:
        return [path(view) for path, view in zip(network.pathways, views, strict=True)]

    return encode, network.fuse
