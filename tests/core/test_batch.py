"""Views and targets are found in anybody's batch, and put back into one like it."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from critical_periods.core.batch import Batch, find
from critical_periods.core.errors import UserError

B, C, H, W = 3, 2, 4, 5


def image(offset: float = 0.0) -> Tensor:
    return torch.arange(B * C * H * W).reshape(B, C, H, W) / 7 + offset


LEFT, RIGHT = image(), image(1000)
TARGET, INDEX = torch.tensor([4, 0, 2]), torch.tensor([90, 10, 50])
SOFT = torch.eye(5)[TARGET]


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Sample(NamedTuple):
    pair: Pair
    label: Tensor


class Careful(NamedTuple("Careful", [("image", Tensor), ("y", Tensor)])):
    """A named tuple that cannot be made by position."""

    def __new__(cls, *, image: Tensor, y: Tensor) -> "Careful":
        return super().__new__(cls, image, y)


@dataclass
class Open:
    image: Tensor
    label: Tensor
    name: str = "some"


@dataclass(frozen=True, slots=True)
class Shut:
    left: Tensor
    right: Tensor
    target: Tensor


class Recorder(dict):
    """A mapping that is more than a dict."""

    source = ""


def from_recorder() -> Recorder:
    batch = Recorder(image=LEFT, label=TARGET)
    batch.source = "somewhere"
    return batch


# Each with its views in order, and its target.
BATCHES: dict[str, tuple[Any, list[Tensor], Tensor | None]] = {
    "x": (LEFT, [LEFT], None),
    "(x,)": ((LEFT,), [LEFT], None),
    "(x, y)": ((LEFT, TARGET), [LEFT], TARGET),
    "[x, y]": ([LEFT, TARGET], [LEFT], TARGET),
    "((xa, xb), y)": (((LEFT, RIGHT), TARGET), [LEFT, RIGHT], TARGET),
    "(xa, xb, y)": ((LEFT, RIGHT, TARGET), [LEFT, RIGHT], TARGET),
    "(x, soft)": ((LEFT, SOFT), [LEFT], SOFT),
    "(x, words, y)": ((LEFT, ["a", "b", "c"], None, 3.0, TARGET), [LEFT], TARGET),
    "(stack, y)": ((torch.stack([LEFT, RIGHT], 1), TARGET), [LEFT, RIGHT], TARGET),
    "(x, y, a number)": ((LEFT, torch.tensor(2), TARGET), [LEFT], TARGET),
    "(x, lengths of others)": ((LEFT, torch.arange(B + 1)), [LEFT], None),
    "(uint8, y)": ((LEFT.byte(), TARGET), [LEFT.byte()], TARGET),
    "(bfloat16, int32)": ((LEFT.bfloat16(), TARGET.int()), [LEFT.bfloat16()], TARGET.int()),
    "dict": ({"label": TARGET, "pixel_values": LEFT, "name": "b"}, [LEFT], TARGET),
    "dict with ids": ({"image": LEFT, "index": INDEX, "Targets": TARGET}, [LEFT], TARGET),
    "dict without a name": ({"image": LEFT, "digit": TARGET}, [LEFT], TARGET),
    "OrderedDict": (OrderedDict(right=RIGHT, left=LEFT, y=TARGET), [RIGHT, LEFT], TARGET),
    "defaultdict": (defaultdict(list, x=LEFT, y=TARGET), [LEFT], TARGET),
    "a dict of one's own": (from_recorder(), [LEFT], TARGET),
    "nested": ({"a": ({"x": LEFT}, INDEX), "b": [RIGHT, {"label": TARGET}]}, [LEFT, RIGHT], TARGET),
    "NamedTuple": (Sample(Pair(LEFT, RIGHT), TARGET), [LEFT, RIGHT], TARGET),
    "a careful NamedTuple": (Careful(image=LEFT, y=TARGET), [LEFT], TARGET),
    "dataclass": (Open(LEFT, TARGET), [LEFT], TARGET),
    "frozen dataclass": (Shut(LEFT, RIGHT, TARGET), [LEFT, RIGHT], TARGET),
}


def children(tree: Any) -> dict[Any, Any]:
    if hasattr(tree, "__dataclass_fields__"):
        return {name: getattr(tree, name) for name in tree.__dataclass_fields__}
    if isinstance(tree, (list, tuple)):
        return dict(enumerate(tree))
    return dict(tree) if isinstance(tree, dict) else {}


def same(a: Any, b: Any) -> bool:
    """Whether two trees have the same types, keys and values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if not (parts := children(a)):
        return bool(a == b)
    others = children(b)
    return list(parts) == list(others) and all(same(parts[key], others[key]) for key in parts)


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for child in children(tree).values() for leaf in tensors(child)]


@pytest.fixture(params=BATCHES)
def case(request: pytest.FixtureRequest) -> tuple[Any, list[Tensor], Tensor | None]:
    return BATCHES[request.param]


def test_finds_views_and_target(case):
    batch, views, target = case
    found, _ = find(batch)
    assert found.views.shape == (B, len(views), C, H, W)
    for place, view in enumerate(views):
        assert same(found.views[:, place], view)
    assert same(found.target, torch.full((B,), -1) if target is None else target)
    assert found.target_view.tolist() == found.index.tolist() == [-1] * B


def test_puts_an_edited_batch_back(case):
    batch, views, target = case
    originals, before = tensors(batch), [leaf.clone() for leaf in tensors(batch)]
    found, put_back = find(batch)
    assert same(put_back(found), batch)
    edited = found._replace(views=found.views * 0 + 3, target=found.target * 0 + 1)
    result = put_back(edited)
    assert type(result) is type(batch)
    again, _ = find(result)
    assert same(again.views, edited.views)
    if target is not None:
        assert same(again.target, edited.target)
    # What is neither view nor target is the very same object.
    kept = [leaf for leaf in originals if any(leaf is other for other in tensors(result))]
    stacked = any(leaf.ndim == 5 for leaf in originals)
    changed = (1 if stacked else len(views)) + (target is not None)
    assert len(kept) == len(originals) - changed
    # And the original is as it was.
    assert all(
        a is b and torch.equal(a, c)
        for a, b, c in zip(originals, tensors(batch), before, strict=True)
    )


def test_other_attributes_survive():
    recorder = from_recorder()
    assert find(recorder)[1](find(recorder)[0]).source == "somewhere"
    assert find(Open(LEFT, TARGET, "mine"))[1](find(Open(LEFT, TARGET))[0]).name == "mine"
    filled = find(defaultdict(list, x=LEFT))[1](find(defaultdict(list, x=LEFT))[0])
    assert filled["new"] == []


def test_tensors_that_are_slices_of_one_stay_as_they_are():
    base = torch.stack([LEFT, RIGHT])
    before = base.clone()
    batch = ((base[0], base[1]), TARGET)
    found, put_back = find(batch)
    (left, right), _ = put_back(found._replace(views=found.views.flip(-2)))
    assert torch.equal(left, LEFT.flip(-2)) and torch.equal(right, RIGHT.flip(-2))
    left.zero_()
    right.zero_()
    assert torch.equal(base, before)


def test_our_own_batch_is_taken_as_it_is():
    batch = Batch(torch.stack([LEFT, RIGHT], 1), TARGET, torch.tensor([0, 1, -1]), INDEX)
    found, put_back = find(batch, target_needed=True)
    assert found is batch
    edited = batch._replace(target=TARGET + 1)
    assert put_back(edited) is edited


@pytest.mark.parametrize(
    ("batch", "target_needed", "sentence"),
    [
        ({"tokens": INDEX, "name": "b"}, False,
         r"no images were found in a batch that is dict\(tokens: int64 \[3\], name: str\); .* "
         r"so let the data loader give \(images, target\)"),
        ((LEFT, image()[..., 1:], TARGET), False,
         r"views of a batch differ \(float32 \[3, 2, 4, 5\] and float32 \[3, 2, 4, 4\]\)"),
        ((LEFT, LEFT.half()), False, r"differ \(float32 \[3, 2, 4, 5\] and float16"),
        ((LEFT, {"name": "b"}), True, r"no target was found in a batch that is tuple\(0: float32"),
        ((LEFT, torch.rand(B)), True, r"no target was found"),
        ((LEFT[None], LEFT[None], TARGET), False, r"2 tensors of a batch .* could each hold all"),
        (["name"] * 90, False, r"list\(0: str, 1: str, .*, 5: str, …\); images are"),
        (None, False, r"a batch that is NoneType;"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_said_in_a_sentence(batch, target_needed, sentence):
    with pytest.raises(UserError, match=sentence):
        find(batch, target_needed)
