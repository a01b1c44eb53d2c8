"""Tensors in the tuples, lists, dicts and data classes that batches are made of."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from operator import setitem
from typing import Any

import torch
from torch import Tensor

from critical_periods.core.batch import Batch

# File names and the like come as lists of B strings; an error message shows the first few.
_SHOWN = 6

Path = tuple[Any, ...]


def parts_of(tree: Any) -> dict[Any, Any]:
    """What a tuple, list, dict or data class holds, by its keys; nothing of anything else."""
    if isinstance(tree, Mapping):
        return dict(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return dict(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return dict(enumerate(tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return {field.name: getattr(tree, field.name) for field in fields(tree)}
    return {}


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """All tensors with their paths, without their subclass."""
    if isinstance(tree, Tensor):
        yield path, plain(tree)
    for key, child in parts_of(tree).items():
        yield from leaves(child, (*path, key))


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors in tuples, lists, dicts and data classes, without their subclass.

    Example:
        >>> len(tensors_in({"logits": torch.zeros(2), "hidden": [torch.ones(2), None]}))
        2
    """
    return [leaf for _, leaf in leaves(tree)]


def rebuild(tree: Any, path: Path, replacements: dict[Path, Tensor]) -> Any:
    """A tree of the same form, with other tensors at some paths; ``path`` is its own."""
    if isinstance(tree, Tensor):
        return like(tree, replacements[path]) if path in replacements else tree
    children = parts_of(tree).items()
    new = {key: rebuild(child, (*path, key), replacements) for key, child in children}
    if isinstance(tree, (list, tuple)):
        return getattr(tree, "_make", type(tree))(new.values())
    rebuilt: Any = copy.copy(tree) if new else tree
    put: Callable[..., None] = setitem if isinstance(tree, Mapping) else object.__setattr__
    for key, child in new.items():
        put(rebuilt, key, child)
    return rebuilt


def mapped(batch: Any, change: Callable[[Tensor], Any]) -> Any:
    """A batch of what a function makes of each tensor, in dicts and lists, and nothing else.

    :func:`~critical_periods.core.finding.find` finds in it what it finds in the batch.

    Example:
        >>> mapped(([torch.zeros(2, 3)], {"y": torch.ones(2), "name": "a"}), len)
        [[2], {'y': 2}]
    """
    if isinstance(batch, Tensor):
        return change(plain(batch))
    if isinstance(batch, Batch):
        return Batch(*(mapped(part, change) for part in batch))
    inside = {key: mapped(child, change) for key, child in parts_of(batch).items()}
    if isinstance(batch, (list, tuple)) and not hasattr(batch, "_fields"):
        return list(inside.values())
    # What holds no tensor is an empty dict.
    return {key: one for key, one in inside.items() if not isinstance(one, dict) or one}


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


def describe(tree: Any) -> str:
    """A tree in a sentence: types, shapes and names."""
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {list(tree.shape)}"
    children, name = parts_of(tree), type(tree).__name__
    shown = [f"{key}: {describe(child)}" for key, child in islice(children.items(), _SHOWN)]
    shown += ["…"] if len(children) > _SHOWN else []
    return f"{name}({', '.join(shown)})" if children else name
