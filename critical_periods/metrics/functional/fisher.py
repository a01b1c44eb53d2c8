"""The trace of the Fisher information of a network's weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from critical_periods.core.errors import UserError
from critical_periods.core.internals import plain_for_func
from critical_periods.core.project import Likelihood
from critical_periods.core.restoring import restored
from critical_periods.core.whole_batch import WholeBatch
from critical_periods.metrics.functional.likelihood import check_outputs

# What torch says of a network that draws random numbers where it should not.
_DRAWS = "randomness error mode"
# Bytes of per-sample gradients at once. On a CPU more than its caches hold is slower.
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

    So one forward pass and one backward pass an output suffice. The network is in evaluation mode
    and without autocast during the
    call; its training flags, gradients, buffers and the global random state are left as they were.

    Source: Achille et al. (ICLR 2019).

    Args:
        network: takes one tensor a view and returns logits [B, K], or what ``likelihood`` is of.
            Parameters that do not require
            a gradient are left out; a shared one counts once, under its first name.
        views: one batch [B, ...] a view.
        num_draws: labels y ~ p(y|x) drawn for each sample; by default the expectation is exact, a
            sum over all K outputs.
        generator: of the draws; needed with ``num_draws``.
        chunk_size: samples whose gradients are held at once, each as large as the network. By
            default 64 MiB of them on a CPU and 1 GiB elsewhere.
        likelihood: of labels given outputs: ``categorical`` (logits [B, K], or [B, K, ...] of a
            class at each place), ``bernoulli`` (one logit [B] or [B, 1], or any [B, ...] of
            independent labels) or ``gaussian`` (means [B, ...] of unit variance).

    Returns:
        Float64 [B] a layer. A layer is the module that owns the parameters, under its name in the
        network ("trunk.stage4.0.conv1"; weight and bias are one layer), or "root" for parameters
        that the network itself owns.

    Raises:
        UserError: the network does not return logits [B, K] (but probabilities, say) or has no
            parameter to train, or ``num_draws`` comes without a generator.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        >>> _ = nn.init.zeros_(network[1].weight), nn.init.zeros_(network[1].bias)
        >>> squared_score_norms(network, [torch.tensor([[3.0, 4.0], [0.0, 0.0]])])
        {'1': tensor([13.0000,  0.5000], dtype=torch.float64)}
    """
    parameters = {name: p.detach() for name, p in trained_parameters(network).items()}
    device = views[0].device

    with (
        evaluating(network),
        plain_for_func(network),
        # Lightning validates in inference mode, in which some versions of torch compute no
        # gradients, not even functional ones.
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),  # the only attention that vmap supports everywhere
    ):
        views = [view.clone() if view.is_inference() else view for view in views]
        outputs = network(*views)
        check_outputs(outputs, len(views[0]), likelihood)
        logits = outputs.reshape(len(outputs), -1)
        number = torch.arange(logits.shape[1], device=device)
        # Output n = k · places + s is that of class k at place s.
        places = outputs[0, 0].numel() if likelihood == "categorical" else 1
        # A score in the outputs is (what was drawn) - (what is expected).
        expected = torch.zeros_like(logits, dtype=torch.float64)
        labels, weights = number.expand_as(logits), torch.ones_like(expected)
        if likelihood == "categorical":
            expected = weights = outputs.double().softmax(1).flatten(1)
        elif likelihood == "bernoulli":
            probabilities = logits.double().sigmoid()
            weights = probabilities * (1 - probabilities)
        if num_draws is not None:
            if likelihood == "bernoulli":
                expected = probabilities
            labels = _draw(expected, num_draws, generator, likelihood, places)
            weights = torch.full(labels.shape[:2], 1 / num_draws, dtype=torch.float64)
            weights = weights.to(device)

        def norms_of_one(
            p: Tensor, labels: Tensor, weights: Tensor, *sample: Tensor
        ) -> dict[str, Tensor]:
            batch = tuple(view.unsqueeze(0) for view in sample)

            def call(weights: dict[str, Tensor]) -> Tensor:
                # Copies, should a network write into its buffers even in evaluation mode.
                buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
                return functional_call(network, weights | buffers, batch)

            output, pull_back = vjp(call, parameters)[:2]
            norms = dict.fromkeys(map(layer_of, parameters), torch.zeros_like(p[0]))
            for label, weight in zip(labels, weights, strict=True):
                if label.ndim == 0:
                    # Of one output, at its place alone.
                    score = ((number == label).to(p.dtype) - p) * (
                        number % places == label % places
                    )
                elif likelihood == "categorical":
                    score = (number // places == label.repeat(len(p) // places)).to(p.dtype) - p
                else:
                    score = label - p
                cotangent = score.to(output.dtype).reshape(output.shape)
                for name, gradient in pull_back(cotangent)[0].items():
                    wide = torch.promote_types(gradient.dtype, torch.float32)
                    norm = gradient.square().sum(dtype=wide)
                    norms[layer_of(name)] = norms[layer_of(name)] + weight * norm
            return norms

        sample = sum(p.numel() * p.element_size() for p in parameters.values())
        budget = CPU_BUDGET if device.type == "cpu" else DEVICE_BUDGET
        of_all = torch.vmap(norms_of_one, chunk_size=chunk_size or max(1, budget // sample))
        of_each = (expected, labels, weights, *views)
        try:
            return of_all(*of_each)
        except (RuntimeError, ValueError) as error:
            # Recurrent networks, and what asks for values, such as of masks, take one at a time.
            if isinstance(error, torch.OutOfMemoryError) or _DRAWS in str(error):
                raise
        norms = [norms_of_one(*one) for one in zip(*of_each, strict=True)]
        return {layer: torch.stack([one[layer] for one in norms]) for layer in norms[0]}


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


def _draw(
    expected: Tensor,
    num_draws: int,
    generator: torch.Generator | None,
    likelihood: Likelihood,
    places: int,
) -> Tensor:
    """Class numbers [B, draws, places], or labels or noise [B, draws, K]."""
    if generator is None:
        raise UserError(f"num_draws is {num_draws} without a generator; pass a torch.Generator.")
    # Several processes draw for the samples of all, so that they draw what one would.
    whole = WholeBatch(len(expected), generator)
    table = torch.ones(whole.rows, *expected.shape[1:], dtype=expected.dtype)
    table = table.to(generator.device)
    whole.part(table).copy_(expected)
    if likelihood == "categorical":
        rows = table.unflatten(1, (-1, places)).transpose(1, 2).flatten(0, 1)
        draws = torch.multinomial(rows, num_draws, replacement=True, generator=whole.generator)
        draws = draws.unflatten(0, (-1, places)).transpose(1, 2)
    else:
        table = table.unsqueeze(1).repeat(1, num_draws, 1)
        if likelihood == "bernoulli":
            draws = torch.bernoulli(table, generator=whole.generator)
        else:
            draws = table.normal_(generator=whole.generator)
    return whole.part(draws).to(expected.device)
