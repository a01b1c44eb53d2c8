"""The network and its decoders built from a state dict with MultiMAE's names, of any sizes."""

import re
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.models.multi_view.transformer import MultiViewTransformer


class Published(NamedTuple):
    """What :func:`from_state_dict` builds.

    Attributes:
        network: the encoder, with a fresh classifier.
        decoders: by their names: ``view_0``, …; ``norm_view_0``, … for normalised pixels.
    """

    network: MultiViewTransformer
    decoders: nn.ModuleDict


def from_state_dict(
    state: Mapping[str, Tensor], heads: int, decoder_heads: int = 8, num_classes: int = 10
) -> Published:
    """Builds the encoder and the decoders that a state dict describes, with its weights.

    Every size is read off the weights but the numbers of heads, which weights do not show.
    Positions are those of the state dict; the dtype is that of the weights.

    Args:
        state: tensors by the names of MultiMAE's published checkpoints, with the inputs ``view_0``,
            ``view_1``, …
        heads: of the encoder's attentions.
        decoder_heads: of the decoders'.
        num_classes: of the classifier, which is not in the state dict.

    Raises:
        UserError: a tensor is missing or has no place, or a shape does not fit.

    Example:
        >>> import torch
        >>> made = MultiViewTransformer(width=24, depth=2, heads=3, patch=4, image_size=8)
        >>> state = {name: value for name, value in made.state_dict().items()
        ...          if not name.startswith("classifier.")}
        >>> network, decoders = from_state_dict(state, heads=3)
        >>> views = torch.randn(2, 1, 3, 8, 8)
        >>> torch.equal(network.encode(views), made.encode(views)), len(decoders)
        (True, 0)
    """
    width, channels, patch, _ = _shape(state, "input_adapters.view_0.proj.weight", 4)
    *_, rows, columns = _shape(state, "input_adapters.view_0.pos_emb", 4)
    views = _count(state, "input_adapters.view_", ".proj.weight")
    network = MultiViewTransformer(
        width=width,
        depth=_count(state, "encoder.", ".mlp.fc1.weight"),
        heads=heads,
        patch=patch,
        image_size=(rows * patch, columns * patch),
        num_views=views,
        num_classes=num_classes,
        in_channels=channels,
        global_tokens=_shape(state, "global_tokens", 3)[1],
        mlp_ratio=_mlp_ratio(state, "encoder.0.mlp.fc1.weight"),
    )
    decoders = nn.ModuleDict()
    for name in sorted({key.split(".")[1] for key in state if key.startswith("output_adapters.")}):
        of_view = re.fullmatch(r"(?:norm_)?view_(\d+)", name)
        if of_view is None or int(of_view[1]) >= views:
            raise UserError(
                f"the state dict has a decoder {name!r}; names are view_0 to view_{views - 1}, and "
                "norm_view_0 and so on for normalised pixels."
            )
        inside = f"output_adapters.{name}."
        decoders[name] = network.make_decoder(
            int(of_view[1]),
            width=_shape(state, f"{inside}mask_token", 3)[2],
            depth=_count(state, f"{inside}decoder_transformer.", ".mlp.fc1.weight"),
            heads=decoder_heads,
            mlp_ratio=_mlp_ratio(state, f"{inside}mlp.fc1.weight"),
        )
    both = nn.Module()
    both.network, both.output_adapters = network, decoders
    both.to(state["global_tokens"].dtype)
    named = {name: value for name, value in both.state_dict().items() if ".classifier." in name}
    for name, value in state.items():
        named[name if name.startswith("output_adapters.") else f"network.{name}"] = value
    try:
        both.load_state_dict(named)
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip().rstrip(".")
        raise UserError(f"the state dict is of no multi-view transformer: {problem}.") from error
    return Published(network, decoders)


def _count(state: Mapping[str, Tensor], before: str, after: str) -> int:
    """How many names ``before`` + number + ``after`` there are, counted from 0."""
    return next(number for number in count() if f"{before}{number}{after}" not in state)


def _mlp_ratio(state: Mapping[str, Tensor], name: str) -> float:
    """The width of an MLP's hidden layer, in widths of its input."""
    hidden, width = _shape(state, name, 2)
    # Halfway to the next whole width, so that none is lost where the product is rounded down.
    return (hidden + 0.5) / width


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != dimensions:
        raise UserError(f"the state dict must hold {name!r} with {dimensions} dimensions.")
    return tuple(state[name].shape)
