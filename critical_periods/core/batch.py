"""The batch of views and targets, and how it is found in the batches of third parties."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from operator import setitem
from typing import Any, NamedTuple

import torch
from torch import Tensor

from critical_periods.core.errors import UserError

_TARGET_NAMES = {"target", "targets", "label", "labels", "y", "class", "classes"}
# File names and the like come as lists of B strings; an error message shows the first few.
_SHOWN = 6

Path = tuple[Any, ...]


class Batch(NamedTuple):
    """Samples of one or more views with their targets.

    Attributes:
        views: images, [B, V, C, H, W]; one eye is V = 1.
        target: class numbers [B], or soft targets [B, K].
        target_view: whose target it is, [B]: -1 for all views together, v for view v.
        index: each sample's place in its data set, [B]; -1 where it is not known.
    """

    views: Tensor
    target: Tensor
    target_view: Tensor
    index: Tensor  # type: ignore[assignment] # hides tuple.index


def find(batch: Any, target_needed: bool = False) -> tuple[Batch, Callable[[Batch], Any]]:
    """Finds the views and the target in a batch of any project.

    Views are float or uint8 tensors: each one of shape [B, C, H, W] is a view, in the order in
    which the batch holds them, or a single one of shape [B, V, C, H, W] holds all. The target is
    the whole number tensor [B] or float tensor [B, K] that is called ``target``, ``label`` or
    ``y`` (or their plurals); without such a name, the first that comes after the views.

    Args:
        batch: a tensor, or tuples, lists, named tuples, dicts and dataclasses of them, nested in
            any way: ``(x, y)``, ``((left, right), y)``, ``{"image": x, "label": y}``.
        target_needed: whether a batch without a target is refused.

    Returns:
        The batch as a :class:`Batch`, and a function that puts an edited one back: it returns a
        new batch of the original form and leaves the original, and all of its tensors, as it was.

    Raises:
        UserError: there are no views, views of different shapes, several stacks of views, views
            [B, H, W, C], or no target where one is needed.

    Example:
        >>> pair = ((torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)), torch.arange(4))
        >>> found, put_back = find(pair)
        >>> found.views.shape
        torch.Size([4, 2, 3, 8, 8])
        >>> (left, right), target = put_back(found._replace(views=found.views + 1))
        >>> left.mean().item(), pair[0][0].mean().item()
        (1.0, 0.0)
    """
    if isinstance(batch, Batch):
        return batch, lambda edited: edited
    leaves = list(_leaves(batch))
    images_of: dict[int, list[Path]] = {4: [], 5: []}  # by the number of dimensions
    for path, leaf in leaves:
        if leaf.ndim in images_of and (leaf.is_floating_point() or leaf.dtype == torch.uint8):
            images_of[leaf.ndim].append(path)
    stacked = bool(images_of[5])
    view_paths = images_of[5] or images_of[4]
    if stacked and len(view_paths) > 1:
        raise UserError(
            f"{len(view_paths)} tensors of a batch that is {_describe(batch)} could each hold all "
            "views [B, V, C, H, W]; let the data loader give one of them, or one tensor "
            "[B, C, H, W] for each view."
        )
    if not view_paths:
        raise UserError(
            f"no images were found in a batch that is {_describe(batch)}; a deficit edits float or "
            "uint8 tensors [B, C, H, W] (one a view) or [B, V, C, H, W], so let the data loader "
            "give (images, target), ((left, right), target) or a dict of them."
        )
    tensors = dict(leaves)
    views = [tensors[path] for path in view_paths]
    if len({(view.shape, view.dtype) for view in views}) > 1:
        kinds = " and ".join(_describe(view) for view in views)
        raise UserError(
            f"the views of a batch differ ({kinds}); a deficit needs views of one shape and type."
        )
    height, width, colours = views[0].shape[-3:]
    if colours in (3, 4) and min(height, width) > 4:
        raise UserError(
            f"the views of a batch that is {_describe(batch)} look like [B, H, W, C]; move the "
            "colours before the rows, [B, C, H, W], in the data set or its transform."
        )
    images = views[0] if stacked else torch.stack(views, dim=1)
    target_path = _find_target(leaves, view_paths, len(images))
    if target_path is None and target_needed:
        raise UserError(
            f"no target was found in a batch that is {_describe(batch)}; this deficit edits it, so "
            "let the data loader give whole numbers [B] after the images or named 'target'."
        )
    unknown = torch.full((len(images),), -1, device=images.device)
    target = unknown if target_path is None else tensors[target_path]

    def put_back(edited: Batch) -> Any:
        new = edited.views.unbind(1) if not stacked else (edited.views,)
        replacements: dict[Path, Tensor] = dict(zip(view_paths, new, strict=True))
        if target_path is not None:
            replacements[target_path] = edited.target
        return _rebuild(batch, (), replacements)

    return Batch(images, target, unknown, unknown), put_back


def _find_target(leaves: list[tuple[Path, Tensor]], views: list[Path], size: int) -> Path | None:
    last_view = max(place for place, (path, _) in enumerate(leaves) if path in views)
    candidates = [
        (place, path)
        for place, (path, leaf) in enumerate(leaves)
        # Whole numbers [B] are classes; floats [B, K] are soft targets.
        if path not in views
        and leaf.ndim == (2 if leaf.is_floating_point() else 1)
        and len(leaf) == size
    ]
    named = [path for _, path in candidates if str(path[-1]).lower() in _TARGET_NAMES]
    after = [path for place, path in candidates if place > last_view]
    return next(iter(named + after), None)


def _children(tree: Any) -> dict[Any, Any]:
    if isinstance(tree, Mapping):
        return dict(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return dict(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return dict(enumerate(tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return {field.name: getattr(tree, field.name) for field in fields(tree)}
    return {}


def _leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, plain(tree)
    for key, child in _children(tree).items():
        yield from _leaves(child, (*path, key))


def _rebuild(tree: Any, path: Path, replacements: dict[Path, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return like(tree, replacements[path]) if path in replacements else tree
    children = _children(tree).items()
    new = {key: _rebuild(child, (*path, key), replacements) for key, child in children}
    if isinstance(tree, (list, tuple)):
        return getattr(tree, "_make", type(tree))(new.values())
    rebuilt: Any = copy.copy(tree) if new else tree
    put: Callable[..., None] = setitem if isinstance(tree, Mapping) else object.__setattr__
    for key, child in new.items():
        put(rebuilt, key, child)
    return rebuilt


def mapped(batch: Any, change: Callable[[Tensor], Any]) -> Any:
    """A batch of what a function makes of each tensor, in dicts and lists, and nothing else.

    :func:`find` finds in it what it finds in the batch.

    Example:
        >>> mapped(([torch.zeros(2, 3)], {"y": torch.ones(2), "name": "a"}), len)
        [[2], {'y': 2}]
    """
    if isinstance(batch, Tensor):
        return change(plain(batch))
    if isinstance(batch, Batch):
        return Batch(*(mapped(part, change) for part in batch))
    inside = {key: mapped(child, change) for key, child in _children(batch).items()}
    if isinstance(batch, (list, tuple)) and not hasattr(batch, "_fields"):
        return list(inside.values())
    return {key: child for key, child in inside.items() if not _is_empty(child)}


def _is_empty(tree: Any) -> bool:
    return isinstance(tree, dict) and not tree


def plain(tensor: Tensor) -> Tensor:
    """A tensor without its subclass, such as those of MONAI and of torchvision's transforms.

    Those that are put together of others, such as nested tensors, stay as they are.
    """
    kind = type(tensor)
    if kind is Tensor or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return tensor
    return tensor.as_subclass(Tensor)


def like(original: Tensor, edited: Tensor) -> Tensor:
    """An edited tensor, laid out in memory as the original is, and of its subclass.

    Projects call ``x.view(len(x), -1)``, or keep what they know of an image with its tensor.

    Example:
        >>> pair = torch.zeros(4, 2, 3)
        >>> pair[:, 0].is_contiguous(), like(torch.ones(4, 3), pair[:, 0]).is_contiguous()
        (False, True)
    """
    base = plain(original)
    if edited.shape == base.shape and edited.stride() != base.stride():
        edited = torch.empty_like(base, dtype=edited.dtype, device=edited.device).copy_(edited)
    if type(base) is type(original) or type(edited) is not Tensor:
        return edited
    dressed = edited.as_subclass(type(original))
    vars(dressed).update(vars(original))
    return dressed


def _describe(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {list(tree.shape)}"
    children, name = _children(tree), type(tree).__name__
    shown = [f"{key}: {_describe(child)}" for key, child in islice(children.items(), _SHOWN)]
    shown += ["…"] if len(children) > _SHOWN else []
    return f"{name}({', '.join(shown)})" if children else name
