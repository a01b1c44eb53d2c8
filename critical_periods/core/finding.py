"""How views and targets are found in the batches of third parties."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from critical_periods.core.batch import Batch, mixed
from critical_periods.core.errors import UserError, near
from critical_periods.core.project import Project
from critical_periods.core.trees import Path, describe, leaves, parts_of, rebuild

_TARGET_NAMES = {"target", "targets", "label", "labels", "y", "class", "classes"}
_INDEX_NAMES = {"index", "indexes", "indices", "idx", "id", "ids"}
# What tells the names of views apart: left_eye and right_eye, image_0 and image_1, a and b.
_VIEW = re.compile(r"left|right|\d+|(?<![a-z])[a-dlr](?![a-z])|(?<=^x)[ab]$", re.IGNORECASE)
# More channels than colours have: the axis is another.
_COLOURS = 4


def find(
    batch: Any,
    target_needed: bool = False,
    project: Project | None = None,
    as_images: bool = False,
) -> tuple[Batch, Callable[[Batch], Any]]:
    """Finds the views and the target in a batch of any project, and refuses to guess.

    ``project`` says where they are. What it leaves open is found where there is one candidate:

    - Views are float or uint8 tensors. A single one [B, C, H, W] is one view, a single one
      [B, 2, C, H, W] of at most four colours holds two and [B, 3, 1, H, W] three; any other of five
      axes may be a video.
      Several [B, C, H, W] of one shape and type are one view each if they are a tuple or list
      within the batch, or if their names differ by left and right or by a number. Side by side with
      their target, ``(a, b, y)``, they may also be an image and its mask or clean version.
    - The target is what is called ``target``, ``label``, ``class`` or ``y`` (or their plurals), if
      nothing else is called something like it (``coarse_label``). Without such a name, it is the
      only other tensor of whole numbers [B] or [B, 1], or of floats [B, K] (of another likelihood
      than categorical also [B]), unless it is called an index.

    Args:
        batch: a tensor, or tuples, lists, named tuples, dicts and dataclasses of them, nested in
            any way: ``(x, y)``, ``((left, right), y)``, ``{"image": x, "label": y}``.
        target_needed: whether a batch without a target, or with several that may be it, is
            refused; without need, its target is then -1.
        project: where things are, as far as that is said.
        as_images: whether views are laid out for a deficit, whatever their axes: images
            [B, ..., C, H, W], anything else [B, N]. Otherwise they are as the batch has them.

    Returns:
        The batch as a :class:`Batch`, and a function that puts an edited one back: it returns a
        new batch of the original form and leaves the original, and all of its tensors, as it was.

    Raises:
        UserError: there are no views, several tensors that could be them, views [B, H, W, C], or
            no target, or several candidates, where one is needed; the project names what the
            batch does not have, or other axes.

    Example:
        >>> pair = ((torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)), torch.arange(4))
        >>> found, put_back = find(pair)
        >>> found.views.shape
        torch.Size([4, 2, 3, 8, 8])
        >>> (left, right), target = put_back(found._replace(views=found.views + 1))
        >>> left.mean().item(), pair[0][0].mean().item()
        (1.0, 0.0)
        >>> tables = Project(inputs="features", target="class")
        >>> found, _ = find({"features": torch.zeros(4, 9), "class": torch.arange(4)}, True, tables)
        >>> found.inputs[0].shape, found.target
        (torch.Size([4, 9]), tensor([0, 1, 2, 3]))
    """
    if isinstance(batch, Batch):
        return batch, lambda edited: edited
    project = project or Project()
    tensors = dict(leaves(batch))
    if project.places is None:
        paths = _find_views(batch, tensors)
    else:
        paths = [_path(batch, tensors, place, "inputs") for place in project.places]
    raw = [tensors[path] for path in paths]
    size = len(raw[0]) if raw[0].ndim else 0
    if not size or any(view.ndim == 0 or len(view) != size for view in raw):
        raise UserError(
            f"inputs of Project must all be tensors [B, ...] of the same samples, but are "
            f"{_named(paths, tensors)}."
        )
    axes = [
        _check_axes(path, tensors[path], given)
        for path, given in zip(paths, project.axes_of(len(paths)), strict=True)
    ]
    stack = next((place.index("V") for place in axes if "V" in place), None)
    if stack is not None:
        if len(raw) > 1:
            raise UserError(
                f"axes={project.axes!r} of Project has all views (V) in one tensor, but inputs are "
                f"{_named(paths, tensors)}; name one."
            )
        raw, axes = list(raw[0].unbind(stack)), [axes[0].replace("V", "")] * raw[0].shape[stack]
    views = [_as_image(view, a) for view, a in zip(raw, axes, strict=True)] if as_images else raw
    target_path = _find_target(batch, tensors, paths, size, project, target_needed)
    one_kind = len({(view.shape, view.dtype) for view in views}) == 1
    unknown = torch.full((size,), -1, device=raw[0].device)
    target = unknown if target_path is None else tensors[target_path]
    in_column = target.shape == (size, 1) and not target.is_floating_point()

    def put_back(edited: Batch) -> Any:
        new = [*edited.inputs]
        if as_images:
            new = [_from_image(*each) for each in zip(new, raw, axes, strict=True)]
        if stack is not None:
            new = [torch.stack(new, stack)]
        replacements: dict[Path, Tensor] = dict(zip(paths, new, strict=True))
        if target_path is not None:
            replacements[target_path] = edited.target[:, None] if in_column else edited.target
        return rebuild(batch, (), replacements)

    if in_column:
        target = target[:, 0]
    together = torch.stack(views, dim=1) if one_kind else mixed(views)
    return Batch(together, target, unknown, unknown), put_back


# Where views are.


def _find_views(batch: Any, tensors: dict[Path, Tensor]) -> list[Path]:
    paths = [
        path
        for path, leaf in tensors.items()
        if leaf.ndim in (4, 5) and (leaf.is_floating_point() or leaf.dtype == torch.uint8)
    ]
    say = "say which are the inputs, such as Project(inputs="
    if not tensors and not parts_of(batch):
        raise UserError(
            f"no tensors were found in a batch that is {describe(batch)}; let the data loader give "
            "a tuple, list, dict, named tuple or data class of tensors, such as (images, target)."
        )
    if not paths:
        raise UserError(
            f"no images were found in a batch that is {describe(batch)}; images are float or "
            "uint8 tensors [B, C, H, W] (one a view) or [B, 2, C, H, W] (both), so let the data "
            "loader give (images, target), ((left, right), target) or a dict of them, or say where "
            f"other inputs are, such as Project(inputs={_any(tensors)!r})."
        )
    stacks = [path for path in paths if tensors[path].ndim == 5]
    if len(stacks) > 1:
        raise UserError(
            f"{len(stacks)} tensors of a batch that is {describe(batch)} could each hold all "
            f"views [B, V, C, H, W] or be a video or volume: {_named(stacks, tensors)}; "
            f"{say}{_dotted(stacks[0])!r}, axes='BCTHW')."
        )
    kinds = {(tensors[path].shape, tensors[path].dtype) for path in paths}
    if len(kinds) > 1:
        shown = " and ".join(dict.fromkeys(describe(tensors[path]) for path in paths))
        raise UserError(
            f"the views of a batch differ ({shown}), where {_named(paths, tensors)} could be "
            f"views; {say}{_dotted(paths[0])!r}) for one, or {[*map(_dotted, paths)]} for all."
        )
    if len(paths) > 1 and not _are_views(tensors, paths):
        raise UserError(
            f"{len(paths)} tensors of a batch could be views, or an image and its mask, depth or "
            f"other target: {_named(paths, tensors)}; {say}{_dotted(paths[0])!r}) for one, or "
            f"{[*map(_dotted, paths)]} for all."
        )
    return paths


def _are_views(tensors: dict[Path, Tensor], paths: list[Path]) -> bool:
    """Whether images of one shape are views of one sample, by where they are in the batch."""
    together = zip(*paths, strict=False)
    level = next(place for place, keys in enumerate(together) if len({*map(repr, keys)}) > 1)
    keys = [path[level] for path in paths]
    if all(isinstance(key, int) for key in keys):
        # A tuple of images alone.
        group = [path for path in tensors if path[:level] == paths[0][:level]]
        return level > 0 and len(group) == len(paths)
    names = [str(key).lower() for key in keys]
    alike = {_VIEW.sub("#", name) for name in names}
    return len(alike) == 1 and "#" in alike.pop() and not _TARGET_NAMES & {*names}


def _check_axes(path: Path, view: Tensor, given: str | None) -> str:
    """The axes of an input, a letter each; "" where nothing is known of them."""
    shape = list(view.shape)
    if given is not None:
        if len(given) != view.ndim:
            raise UserError(
                f"axes={given!r} of Project has {len(given)} letters, but the input "
                f"{_dotted(path)!r} is {describe(view)}; give one for each axis."
            )
        return given
    if view.ndim == 5:
        # Of one colour, the other reading is a video of a single frame.
        if (shape[1] == 2 and shape[2] <= _COLOURS) or (shape[1] == 3 and shape[2] == 1):
            return "BVCHW"
        inputs = f"inputs={_dotted(path)!r}, " if path else ""
        raise UserError(
            f"{_dotted(path)!r} of a batch, {describe(view)}, could be views [B, V, C, H, W] or a "
            f"video [B, C, T, H, W] or [B, T, C, H, W]; say which it is, such as "
            f"Project({inputs}axes='BCTHW')."
        )
    return "BCHW" if view.ndim == 4 else ""


def _as_image(view: Tensor, axes: str) -> Tensor:
    """An input as deficits take it: [B, ..., C, H, W] where it is of images, otherwise [B, N]."""
    if not {"H", "W"} <= {*axes}:
        return view.reshape(len(view), -1)
    height, width, colours = view.shape[-3:]
    if axes == "BCHW" and colours in (3, 4) and min(height, width) > 4:
        raise UserError(
            f"the views of a batch ({describe(view)}) look like [B, H, W, C]; move the colours "
            "before the rows, [B, C, H, W], in the data set or its transform, or say where they "
            "are, such as Project(axes='BHWC')."
        )
    return rearrange(view, _to_images(axes))


def _from_image(edited: Tensor, view: Tensor, axes: str) -> Tensor:
    if not {"H", "W"} <= {*axes}:
        return edited.reshape(view.shape)
    before, after = _to_images(axes).split(" -> ")
    return rearrange(edited, f"{after} -> {before}")


def _to_images(axes: str) -> str:
    """How einops brings axes into the order of images.

    >>> _to_images("BCTHW"), _to_images("BHW")
    ('B C T H W -> B T C H W', 'B H W -> B 1 H W')
    """
    others = [letter for letter in axes if letter not in "CHW"]
    return f"{' '.join(axes)} -> {' '.join([*others, 'C' if 'C' in axes else '1', 'H', 'W'])}"


# Where the target is.


def _find_target(
    batch: Any,
    tensors: dict[Path, Tensor],
    views: list[Path],
    size: int,
    project: Project,
    needed: bool,
) -> Path | None:
    if project.target is not None:
        path = _path(batch, tensors, project.target, "target")
        if tensors[path].ndim == 0 or len(tensors[path]) != size:
            raise UserError(
                f"target={project.target!r} of Project is {describe(tensors[path])} in a batch of "
                f"{size} samples; name a tensor [B, ...]."
            )
        return path
    numbers = project.likelihood != "categorical"
    candidates = _candidates(tensors, views, size, numbers)
    named = [path for path in candidates if _name(path) in _TARGET_NAMES]
    alike = [path for path in candidates if _TARGET_NAMES & {*re.split(r"[^a-z]+", _name(path))}]
    if len(named) == 1 and alike == named:
        return named[0]
    if len(candidates) == 1:
        words = {*re.split(r"[^a-z]+", _name(candidates[0]))}
        if not words & _INDEX_NAMES:
            return candidates[0]
    if not needed:
        return None
    if len(candidates) > 1:
        raise UserError(
            f"{len(candidates)} tensors of a batch could be the target: "
            f"{_named(candidates, tensors)}; say which is, such as "
            f"Project(target={_dotted(candidates[-1])!r})."
        )
    raise UserError(
        f"no target was found in a batch that is {describe(batch)}, but is needed here; let the "
        "data loader give whole numbers [B] beside the images or named 'target', or say where it "
        f"is, such as Project(target={_any(tensors, views)!r})."
    )


def _candidates(
    tensors: dict[Path, Tensor], views: list[Path], size: int, numbers: bool = False
) -> list[Path]:
    """What may be the target: classes [B] or [B, 1], soft targets [B, K], and what is named so.

    Where the target is of ``numbers``, floats [B] may be it, too.
    """

    def may_be(path: Path, leaf: Tensor) -> bool:
        if path in views or leaf.ndim == 0 or len(leaf) != size:
            return False
        if _name(path) in _TARGET_NAMES:
            return True
        if leaf.is_floating_point():
            return leaf.ndim == 2 or (numbers and leaf.ndim == 1)
        return leaf.shape in ((size,), (size, 1))

    return [path for path, leaf in tensors.items() if may_be(path, leaf)]


def _name(path: Path) -> str:
    return str(path[-1]).lower() if path else ""


def _path(batch: Any, tensors: dict[Path, Tensor], place: int | str, field: str) -> Path:
    """The path of a tensor that a setting of Project names by a key, a place or a dotted path."""
    path: Path = ()
    tree, left = batch, str(place)
    while left:
        children = {str(key): (key, child) for key, child in parts_of(tree).items()}
        # A key may have dots in it.
        heads = [left, *(left[: dot.start()] for dot in reversed([*re.finditer(r"\.", left)]))]
        head = next((one for one in heads if one in children), None)
        if head is None:
            break
        key, tree = children[head]
        path, left = (*path, key), left[len(head) + 1 :]
    if left or path not in tensors:
        raise UserError(
            f"{field}={place!r} of Project names no tensor of a batch that is {describe(batch)}; "
            f"{near(str(place), [str(_dotted(one)) for one in tensors] or ['nothing'])}"
        )
    return path


def _dotted(path: Path) -> Any:
    """A path as a setting of Project has it."""
    return path[0] if len(path) == 1 else ".".join(map(str, path))


def _any(tensors: dict[Path, Tensor], but: Sequence[Path] = ()) -> Any:
    """Some place in a batch, for an example."""
    return next((_dotted(path) for path in tensors if path and path not in but), 0)


def _named(paths: list[Path], tensors: dict[Path, Tensor]) -> str:
    return ", ".join(f"{_dotted(path)!r} ({describe(tensors[path])})" for path in paths)
