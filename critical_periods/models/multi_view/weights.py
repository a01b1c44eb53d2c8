"""Weights for a multi-view encoder from a file: of this package's pre-training, or published."""

import argparse
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.models.multi_view.patches import fit_positions

# The key of the number of heads in checkpoints of a MaskedReconstructionTask.
HEADS = "encoder_heads"

LICENCE = (
    "the published weights of MultiMAE are under CC BY-NC 4.0 "
    "(https://creativecommons.org/licenses/by-nc/4.0/): not for commercial use, and with credit to "
    "Bachmann, Mizrahi, Atanov & Zamir, MultiMAE (ECCV 2022)"
)


def encoder_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    num_views: int,
    heads: int,
    views: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """The weights of a file for the encoder of a :class:`.MultiViewTransformer`.

    Three kinds of files are understood: checkpoints of a
    :class:`~critical_periods.tasks.MaskedReconstructionTask` (or of a classification) by
    Lightning, state dicts with the same names, and published checkpoints of MultiMAE, whose
    ``input_adapters.rgb`` every chosen view gets a copy of. Classifiers, decoders and, in published
    files, other kinds of input are left out. **The published weights are under CC BY-NC 4.0**, and
    a warning says so when they are loaded. Positions for another image size are interpolated.

    The number of heads cannot be read off weights: it is compared where the file states it, as
    checkpoints of a ``MaskedReconstructionTask`` do, and otherwise assumed to be the network's.

    Nothing in a file is executed.

    Args:
        path: the file.
        state: the state dict of the network that is to take the weights.
        num_views: how many views the network takes.
        heads: of its attentions.
        views: the views whose patch projections to load; by default all.

    Returns:
        The weights by the network's names, in its shapes; names that are left out keep their
        values.

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
    held, heads_of_file = read_weights(path)
    published = "input_adapters.rgb.proj.weight" in held
    chosen = list(range(num_views) if views is None else views)
    for view in chosen:
        if view not in range(num_views):
            raise UserError(
                f"weights_views={chosen} names view {view}, but the network has views 0 to "
                f"{num_views - 1}."
            )
    left_out = [f"input_adapters.view_{view}." for view in range(num_views) if view not in chosen]
    # In published files every view of this network is one kind of input, RGB.
    sources = {
        name: re.sub(r"adapters\.view_\d+", "adapters.rgb", name) if published else name
        for name in state
        if not name.startswith(("classifier.", *left_out))
    }
    _check_names(path, held, sources.values())
    weights = {name: held[source] for name, source in sources.items()}
    for name, value in weights.items():
        if name.endswith(".pos_emb") and value.ndim == 4:
            weights[name] = fit_positions(value, *state[name].shape[2:])
        if weights[name].shape != state[name].shape:
            raise UserError(
                f"weights: {sources[name]} in {path} has the shape {list(value.shape)}, but the "
                f"network needs {list(state[name].shape)}; choose the size, patch, in_channels and "
                "global_tokens that the weights are of."
            )
    if heads_of_file not in (None, heads):
        raise UserError(
            f"weights: {path} is of an encoder with heads={heads_of_file}, but the network has "
            f"heads={heads}; choose the heads that the weights are of."
        )
    if published:
        warnings.warn(f"{path}: {LICENCE}.", stacklevel=2)
    return weights


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], int | None]:
    """The tensors of a checkpoint by the network's names for them, and its number of heads.

    Args:
        path: a state dict, or one inside ``state_dict`` (Lightning) or ``model`` (MultiMAE).

    Returns:
        The state dict, of a Lightning checkpoint the part under ``network.``; and the heads of
        the encoder's attentions, where the file states them.

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
    except Exception as error:  # the reader may raise anything at a file of another kind
        raise UserError(
            f"weights: {path} is damaged, or holds more than tensors and plain values, so it was "
            "not loaded; give a checkpoint of MaskedReconstructionTask or of MultiMAE."
        ) from error
    content = content if isinstance(content, Mapping) else {}
    heads = content.get(HEADS)
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"weights: {path} holds no weights by names; give a checkpoint of "
            "MaskedReconstructionTask or of MultiMAE."
        )
    prefix = "network."
    inside = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
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
