"""The trace of the Fisher information of a network's weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from critical_periods.core.autograd_graph import UnknownUseError
from critical_periods.core.errors import UserError
from critical_periods.core.internals import plain_for_func
from critical_periods.core.project import Likelihood
from critical_periods.core.restoring import restored
from critical_periods.core.whole_batch import WholeBatch
from critical_periods.metrics.functional.likelihood import check_outputs
from critical_periods.metrics.functional.norms_by_func import norms_by_func
from critical_periods.metrics.functional.sample_norms import NormsByGraph
from critical_periods.metrics.functional.scores import ScoreRoot

# Bytes at once, of activations or of per-sample gradients. On a CPU more is slower.
CPU_BUDGET, DEVICE_BUDGET = 2**26, 2**30


def fisher_trace(
    network: nn.Module,
    views: Sequence[Tensor],
    num_draws: int | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
    likelihood: Likelihood = "categorical",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The trace of the Fisher information, of the network and of each layer.

        Tr F = E_x E_{y ~ p(y|x)} ||∇_w log p(y|x)||²

    in nats² per squared unit of weight: the mean over x of :func:`squared_score_norms`, whose
    arguments and errors these are. Labels come from the network itself, so none are needed.

    Source: Achille, Rovere & Soatto, *Critical Learning Periods in Deep Networks* (ICLR 2019).

    Returns:
        The trace, a float64 scalar, and the same by layer; the layers sum to the trace.

    Example:
        >>> network = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(network.weight)  # p = 1/2: Tr F = |x|² · 1/2
        >>> total, layers = fisher_trace(network, [torch.tensor([[3.0, 4.0]])])
        >>> total, layers
        (tensor(12.5000, dtype=torch.float64), {'root': tensor(12.5000, dtype=torch.float64)})
    """
    norms = squared_score_norms(network, views, num_draws, generator, chunk_size, likelihood)
    layers = {layer: values.mean() for layer, values in norms.items()}
    return torch.stack(list(layers.values())).sum(), layers


def squared_score_norms(
    network: nn.Module,
    views: Sequence[Tensor],
    num_draws: int | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
    likelihood: Likelihood = "categorical",
) -> dict[str, Tensor]:
    """E_{y ~ p(y|x)} ||∇_w log p(y|x)||² of each sample x, layer by layer, in nats².

    With J_k = ∇_w z_k(x) the gradient of an output, and Σ over the K outputs z, this is

    - ``categorical``, p = softmax(z): Σ_k p_k ||J_k - Σ_j p_j J_j||²; of outputs [B, K, ...], such
      as class maps, the sum of that over all places, whose labels are independent;
    - ``bernoulli``, p_k = sigmoid(z_k): Σ_k p_k (1 - p_k) ||J_k||², as labels are independent;
    - ``gaussian``, y ~ N(z, I): Σ_k ||J_k||².

    The covariance of the score in z is written as S Sᵀ
    (:class:`~critical_periods.metrics.functional.scores.ScoreRoot`), so one forward pass and one
    backward pass a column of S suffice, K - 1 of a categorical distribution; with random signs ε,
    E ||(S ε)ᵀ J||² is the same (Hutchinson's estimator), of less variance than that of drawn labels
    where a network is sure of most. Norms come from what layers take and the gradients of what they
    put out (``metrics/functional/sample_norms.py``), checked on one sample in each call; where a
    network uses its weights in other ways, which is said once, each sample's gradients are taken by
    ``torch.func``, which is slower.

    The network is in evaluation mode and without autocast during the call; its training flags,
    gradients, buffers and the global random state are left as they were.

    Source: Achille et al. (ICLR 2019).

    Args:
        network: takes one tensor a view and returns logits [B, K], or what ``likelihood`` is of.
            Parameters that do not require a gradient are left out; a shared one counts once, under
            its first name.
        views: one batch [B, ...] a view.
        num_draws: how many vectors ε of random signs are drawn for each sample; by default the
            expectation is exact, a sum over all columns.
        generator: of the draws; needed with ``num_draws``.
        chunk_size: samples whose activations (or, by ``torch.func``, gradients, each as large as
            the network) are held at once. By default 64 MiB of them on a CPU and 1 GiB elsewhere.
        likelihood: of labels given outputs: ``categorical`` (logits [B, K], or [B, K, ...] of a
            class at each place), ``bernoulli`` (one logit [B] or [B, 1], or any [B, ...] of
            independent labels) or ``gaussian`` (means [B, ...] of unit variance).

    Returns:
        Float64 [B] a layer. A layer is the module that owns the parameters, under its name in the
        network ("trunk.stage4.0.conv1"; weight and bias are one layer), or "root" for parameters
        that the network itself owns.

    Raises:
        UserError: the network does not return logits [B, K] (but probabilities, say) or has no
            parameter to train, or ``num_draws`` is less than 1 or comes without a generator.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        >>> _ = nn.init.zeros_(network[1].weight), nn.init.zeros_(network[1].bias)
        >>> squared_score_norms(network, [torch.tensor([[3.0, 4.0], [0.0, 0.0]])])
        {'1': tensor([13.0000,  0.5000], dtype=torch.float64)}
    """
    trained, device = trained_parameters(network), views[0].device
    if num_draws is not None and num_draws < 1:
        raise UserError(f"{num_draws=} must be at least 1, or None for the exact expectation.")
    if num_draws is not None and generator is None:
        raise UserError(f"num_draws is {num_draws} without a generator; pass a torch.Generator.")
    budget = CPU_BUDGET if device.type == "cpu" else DEVICE_BUDGET
    with (
        evaluating(network),
        plain_for_func(network),
        # Lightning validates in inference mode, in which some versions of torch compute no
        # gradients, not even functional ones.
        torch.inference_mode(False),
        torch.autocast(device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),  # the only attention that vmap supports everywhere
    ):
        views = [view.clone() if view.is_inference() else view for view in views]
        signs = None
        try:
            by_graph = NormsByGraph(network, views, trained, likelihood)
            signs = _signs(by_graph.example, len(views[0]), likelihood, num_draws, generator)
            at_once = chunk_size or max(1, budget // by_graph.bytes_a_sample)
            # None of one sample, which a network may compute in other ways.
            number = max(1, min(math.ceil(len(views[0]) / at_once), len(views[0]) // 2))
            parts = zip(*(view.tensor_split(number) for view in views), strict=True)
            drawn = [None] * number if signs is None else signs.tensor_split(number)
            norms = [
                _chunk_norms(by_graph, part, likelihood, some)
                for part, some in zip(parts, drawn, strict=True)
            ]
            found = {name: torch.cat([one[p] for one in norms]) for name, p in trained.items()}
        except UnknownUseError as unknown:
            _say_slower(type(network).__name__, str(unknown))
            with torch.no_grad():
                outputs = network(*views)
            check_outputs(outputs, len(views[0]), likelihood)
            if signs is None:
                signs = _signs(outputs, len(views[0]), likelihood, num_draws, generator)
            at_once = chunk_size or max(1, budget // sum(p.nbytes for p in trained.values()))
            found = norms_by_func(network, views, ScoreRoot.of(outputs, likelihood), signs, at_once)
    layers: dict[str, Tensor] = {}
    for name, values in found.items():
        layer = layer_of(name)
        layers[layer] = layers[layer] + values if layer in layers else values.double()
    return layers


def _chunk_norms(
    by_graph: NormsByGraph, views: Sequence[Tensor], likelihood: Likelihood, signs: Tensor | None
) -> dict[nn.Parameter, Tensor]:
    with torch.enable_grad():
        outputs = by_graph.network(*views)
    check_outputs(outputs, len(views[0]), likelihood)
    root = ScoreRoot.of(outputs.detach(), likelihood)
    if signs is None:
        return by_graph.of(views, outputs, root.column, root.columns)
    drawn = root.times(signs)
    return by_graph.of(views, outputs, lambda number: drawn[:, number], signs.shape[1])


@cache
def _say_slower(network: str, why: str) -> None:
    if why:
        rank_zero_info(
            f"The Fisher trace of {network} takes the gradients of each sample by torch.func, "
            f"which is slower, as {why}."
        )


def _signs(
    outputs: Tensor,
    samples: int,
    likelihood: Likelihood,
    num_draws: int | None,
    generator: torch.Generator | None,
) -> Tensor | None:
    """Random signs [B, draws, K, places] over √draws, float64; None where none are drawn."""
    if num_draws is None or generator is None:
        return None
    # Several processes draw for the samples of all, so that they draw what one would.
    whole = WholeBatch(samples, generator)
    shape = whole.rows, num_draws, *ScoreRoot.of(outputs, likelihood).p.shape[1:]
    draws = torch.randint(0, 2, shape, generator=whole.generator, device=generator.device)
    return (whole.part(draws).double() * 2 - 1).to(outputs.device) / num_draws**0.5


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient by their names; a UserError if there is none."""
    found = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not found:
        raise UserError("network has no parameter that requires a gradient; unfreeze a layer.")
    return found


def layer_of(parameter: str) -> str:
    """The name of the module that owns a parameter, "root" for the network itself.

    Example:
        >>> layer_of("trunk.stage4.0.conv1.weight"), layer_of("weight")
        ('trunk.stage4.0.conv1', 'root')
    """
    # A compiled module holds the original one under a name of its own.
    return parameter.replace("_orig_mod.", "").rpartition(".")[0] or "root"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A context of evaluation mode, in which a network may be called and leaves no trace.

    Each sub-module then returns to its own mode, and what the calls have put into modules, hooks
    and buffers is taken back (:func:`~critical_periods.core.restoring.restored`). Compiled networks
    run their original code, so that compiled code is neither used nor compiled anew.
    """
    flags = [(module, module.training) for module in network.modules()]
    with restored(network), torch.compiler.set_stance("force_eager"):
        network.eval()
        try:
            yield
        finally:
            for module, training in flags:
                if module.training != training:
                    module.training = training
