"""Starting a multi-view encoder from weights in a file: pre-trained here, or published."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.models.multi_view.positions import fit_positions

# Where a checkpoint of a MaskedReconstructionTask says it: heads leave no trace in weights.
HEADS = "encoder_heads"

LICENCE = (
    "the published weights of MultiMAE are under CC BY-NC 4.0 "
    "(https://creativecommons.org/licenses/by-nc/4.0/): not for commercial use, and with credit to "
    "Bachmann, Mizrahi, Atanov & Zamir, MultiMAE (ECCV 2022)"
)


class Encoder(Protocol):
    """What is needed of a :class:`.MultiViewTransformer` to load weights into it."""

    num_views: int

    @property
    def attention_heads(self) -> int:
        """Heads of its attentions."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its weights by their names."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Takes weights."""
        ...


def load_encoder(network: Encoder, path: str | Path, views: Sequence[int] | None = None) -> None:
    """Gives an encoder the weights of a file; its classifier stays as it was.

    Three kinds of files are understood: checkpoints of a
    :class:`~critical_periods.tasks.MaskedReconstructionTask` (or of a classification) by
    Lightning, state dicts with the same names, and published checkpoints of MultiMAE, whose
    ``input_adapters.rgb`` every chosen view gets a copy of. What the published ones hold of other
    kinds of input, and all decoders, is left out. **The published weights are under CC BY-NC 4.0**,
    and a warning says so when they are loaded. Positions for another image size are interpolated.

    Heads leave no trace in weights: of a checkpoint of a ``MaskedReconstructionTask``, which says
    how many it has, they are compared; of all else they are yours to choose.

    Nothing in a file is executed.

    Args:
        network: the encoder.
        path: the file.
        views: whose patch projections to load; by default those of all views. The others stay as
            they were.

    Raises:
        UserError: the file cannot be read, or what it holds does not fit the network.

    Example:
        >>> import tempfile
        >>> from critical_periods.models import MultiViewTransformer
        >>> sizes = {"width": 8, "depth": 1, "heads": 2, "patch": 8, "image_size": 16}
        >>> trained = MultiViewTransformer(**sizes)
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save(trained.state_dict(), file.name)
        ...     network = MultiViewTransformer(**sizes, num_classes=400, weights=file.name)
        >>> torch.equal(network.global_tokens, trained.global_tokens)
        True
    """
    held, heads = read_weights(path)
    published = "input_adapters.rgb.proj.weight" in held
    numbers = list(range(network.num_views))
    chosen = numbers if views is None else list(views)
    for view in chosen:
        if view not in numbers:
            raise UserError(
                f"weights_views={list(chosen)} names view {view}, but the network has views 0 to "
                f"{numbers[-1]}."
            )
    left_out = [f"input_adapters.view_{view}." for view in numbers if view not in chosen]
    own = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith(("classifier.", *left_out))
    }
    # What the network calls a view is one and the same kind of input, RGB, in published files.
    sources = {
        name: re.sub(r"adapters\.view_\d+", "adapters.rgb", name) if published else name
        for name in own
    }
    _check_names(path, held, sources.values())
    loaded = {name: held[source] for name, source in sources.items()}
    for name, value in loaded.items():
        if name.endswith(".pos_emb") and value.ndim == 4:
            loaded[name] = fit_positions(value, *own[name].shape[2:])
        if loaded[name].shape != own[name].shape:
            raise UserError(
                f"weights: {sources[name]} in {path} has the shape {list(value.shape)}, but the "
                f"network needs {list(own[name].shape)}; choose the size, patch, in_channels and "
                "global_tokens that the weights are of."
            )
    if heads not in (None, network.attention_heads):
        raise UserError(
            f"weights: {path} is of an encoder with heads={heads}, but the network has "
            f"heads={network.attention_heads}; choose the heads that the weights are of."
        )
    if published:
        warnings.warn(f"{path}: {LICENCE}.", stacklevel=2)
    network.load_state_dict(loaded, strict=False)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], int | None]:
    """The tensors of a checkpoint, by the names that the network has for them, and its heads.

    Args:
        path: a state dict, or one inside ``state_dict`` (Lightning) or ``model`` (MultiMAE).

    Returns:
        The state dict, of a Lightning checkpoint the part under ``network.``; and the heads of
        the encoder's attentions, where the file says them.

    Raises:
        UserError: there is no such file, it is damaged or holds more than tensors and plain
            values, or no state dict.
    """
    if not Path(path).is_file():
        raise UserError(
            f"weights: the file {path} does not exist; say where it is now, or leave weights "
            "out where a checkpoint (ckpt_path) that holds them all is loaded anyway."
        )
    try:
        # Published checkpoints keep the command line that they were trained with.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a strange file makes the reader stumble over
        raise UserError(
            f"weights: {path} is damaged, or holds more than tensors and plain values, so it was "
            "not loaded; give a checkpoint of MaskedReconstructionTask or of MultiMAE."
        ) from error
    heads = content.get(HEADS) if isinstance(content, Mapping) else None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {
        str(name): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(
            f"weights: {path} holds no weights by names; give a checkpoint of "
            "MaskedReconstructionTask or of MultiMAE."
        )
    inside = {
        name.removeprefix("network."): value
        for name, value in tensors.items()
        if name.startswith("network.")
    }
    return inside or tensors, heads


def _check_names(path: str | Path, held: Mapping[str, Tensor], needed: Iterable[str]) -> None:
    """Requires all that the encoder needs, and no more blocks than it has."""
    needed = set(needed)
    missing = sorted(needed - held.keys())
    if missing:
        raise UserError(
            f"weights: {path} lacks {len(missing)} of the {len(needed)} tensors of the encoder, "
            f"such as {missing[0]!r} (it holds {', '.join(map(repr, sorted(held)[:3]))}, …); give "
            "a checkpoint of MaskedReconstructionTask or of MultiMAE, of the network's own depth "
            "and views."
        )
    odd = sorted(name for name in held if name.startswith("encoder.") and name not in needed)
    if odd:
        raise UserError(
            f"weights: {path} holds {odd[0]!r}, which the network has no place for; choose the "
            "size (depth) that the weights are of."
        )
