"""The settings by which a network drops activations."""

import re
from typing import Any

from torch import nn

# Modules of torch that drop by a probability p, or by one called dropout.
_BY_P = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_BY_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)
# Classes that drop, of whichever package, and what they may call their probability.
DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
_OWN_NAMES = ("p", "prob", "probability", "rate", "ratio")
# Attributes of any class that are one: dropout, attention_dropout, hidden_dropout_prob, dropout_p,
# drop_rate, drop_path_rate, layerdrop, stochastic_depth_prob, ….
_PROBABILITY = re.compile(
    r"(.*_)?(drop|drop_?out|drop_?path|drop_?block|drop_?connect|layer_?drop|stochastic_depth)"
    r"(_(p|probs?|probability|rate|ratio))?",
    re.IGNORECASE,
)

Setting = tuple[dict[str, Any], str]


def dropout_settings(module: nn.Module) -> list[Setting]:
    """What holds each probability of dropping in a module without its parts, and its name there.

    That is the module, or its ``config``, which those of transformers ask in each forward pass.
    """
    held = module.__dict__
    if isinstance(module, _BY_P + _BY_DROPOUT):
        return [(held, "p" if isinstance(module, _BY_P) else "dropout")]
    own_names = _OWN_NAMES if DROPS.search(type(module).__name__) else ()
    numbers = [name for name, value in held.items() if isinstance(value, float)]
    found = [(held, name) for name in numbers if _PROBABILITY.fullmatch(name) or name in own_names]
    config = getattr(held.get("config"), "__dict__", {})
    names = [name for name, value in config.items() if isinstance(value, float)]
    return found + [(config, name) for name in names if _PROBABILITY.fullmatch(name)]
