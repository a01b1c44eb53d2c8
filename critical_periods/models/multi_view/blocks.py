"""The transformer blocks of the encoder and the decoders, and their initialisation."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.models.vision_transformer import Block
from torch import nn

from critical_periods.core.errors import UserError
from critical_periods.models.checks import check_sizes

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


def transformer_blocks(
    width: int, heads: int, mlp_ratio: float, drop_path: Sequence[float]
) -> nn.Sequential:
    """Pre-norm blocks of self-attention and an MLP, as of a ViT (Dosovitskiy et al. 2021).

    Args:
        width: of a token.
        heads: of the attention, each of width / heads.
        mlp_ratio: width of the MLP's hidden layer, in widths.
        drop_path: for each block the probability that a sample skips its attention, and its MLP; an
            empty list gives no blocks, the identity.

    Raises:
        UserError: the width is no multiple of the heads, or the MLP would have no hidden layer.

    Example:
        >>> blocks = transformer_blocks(8, heads=2, mlp_ratio=4, drop_path=[0, 0.1])
        >>> sum(parameter.numel() for parameter in blocks.parameters())
        1744
    """
    check_sizes(width=width, heads=heads)
    if width % heads:
        raise UserError(f"width={width} must be a multiple of heads={heads}.")
    hidden_width(width, mlp_ratio)
    norm: Any = LayerNorm  # timm calls it, nothing more
    block = partial(Block, width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm)
    return nn.Sequential(*(block(drop_path=rate) for rate in drop_path))


def hidden_width(width: int, mlp_ratio: float) -> int:
    """The width of the hidden layer of an MLP: width · mlp_ratio, rounded down.

    Raises a UserError where that is no number of at least 1.
    """
    if not 1 <= width * mlp_ratio < math.inf:
        raise UserError(
            f"mlp_ratio={mlp_ratio} leaves an MLP no hidden layer; choose a positive number, "
            "such as 4."
        )
    return int(width * mlp_ratio)


def initialise(module: nn.Module) -> None:
    """Initialises all linear layers: Xavier uniform weights, zero biases (He et al. 2022, MAE).

    Weights are uniform on ±√(6 / (inputs + outputs)), where joint projections (``qkv``, ``kv``)
    count as three and two maps, and a patch projection as a linear map.

    Example:
        >>> layer = nn.ModuleDict({"qkv": nn.Linear(2, 6)})
        >>> initialise(layer)
        >>> bool(layer["qkv"].weight.abs().max() > (6 / (2 + 2)) ** 0.5)
        False
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        maps = {"qkv": 3, "kv": 2}.get(name.rpartition(".")[2], 1)
        outputs, inputs = layer.weight.flatten(1).shape
        bound = math.sqrt(6 / (inputs + outputs / maps))
        nn.init.uniform_(layer.weight, -bound, bound)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
