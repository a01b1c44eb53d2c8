"""Views and targets are found in anybody's batch, and put back into one like it."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from critical_periods.core.batch import Batch, join
from critical_periods.core.errors import UserError
from critical_periods.core.finding import find
from critical_periods.core.project import Project

B, C, H, W = 3, 2, 4, 5


def image(offset: float = 0.0) -> Tensor:
    return torch.arange(B * C * H * W).reshape(B, C, H, W) / 7 + offset


LEFT, RIGHT = image(), image(1000)
TARGET, INDEX = torch.tensor([4, 0, 2]), torch.tensor([90, 10, 50])
SOFT, AGE = torch.eye(5)[TARGET], torch.tensor([31.0, 4.5, 90.0])


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
    "a column of labels": ((LEFT, TARGET[:, None]), [LEFT], TARGET),
    "views by number": ({"view_0": LEFT, "view_1": RIGHT, "y": TARGET}, [LEFT, RIGHT], TARGET),
    "views by letter": ({"image_a": LEFT, "image_b": RIGHT}, [LEFT, RIGHT], None),
    "views in a group": (([LEFT, RIGHT],), [LEFT, RIGHT], None),
    "a mask of whole numbers": ((LEFT, LEFT[:, 0].long(), TARGET), [LEFT], TARGET),
    "a named label of numbers": ({"image": LEFT, "label": AGE}, [LEFT], AGE),
    "a named label among others": ({"x": LEFT, "camera": INDEX, "label": TARGET}, [LEFT], TARGET),
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
        (Recorder, False, r"no tensors .* that is type; .* named tuple or data class of tensors"),
        ((LEFT, TARGET, INDEX), True, r"2 tensors .* the target: 1 \(int64 \[3\]\), 2 \(int64"),
        ((INDEX, LEFT, TARGET), True, r"2 tensors of a batch could be the target: 0 .*, 2 "),
        ({"x": LEFT, "label": TARGET, "labels": TARGET}, True, "'label' .*, 'labels'"),
        ({"a": {"x": LEFT, "u": TARGET}, "v": SOFT}, True, r"'a\.u' .*'v' .*Project\(target='v'\)"),
        ({"image": LEFT, "sample_id": INDEX}, True, "no target was found"),
        ({"image": LEFT, "depth": RIGHT, "y": TARGET}, False, "'image' .*, 'depth' .*inputs='im"),
        ({"left": LEFT, "right": RIGHT, "mask": LEFT, "y": TARGET}, False, "3 tensors"),
        ({"x": LEFT, "y": RIGHT}, False, "an image and its mask"),
        ((LEFT, RIGHT), False, "an image and its mask"),
        ((LEFT, RIGHT, TARGET), False, r"an image and its mask.*=0\) for one, or \[0, 1\] for all"),
        ((torch.rand(B, 3, 2, 4, 4), TARGET), False, "0 of a batch, .* or a video"),
        ((torch.rand(B, 2, 16, 4, 4), TARGET), False, "0 of a batch, .* or a video"),
        (torch.rand(B, 3, 8, 4, 4), False, r"such as Project\(axes='BCTHW'\)\."),
        ((torch.rand(B, 2, 3, 4, 4), LEFT, TARGET), False, "views of a batch differ"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_said_in_a_sentence(batch, target_needed, sentence):
    with pytest.raises(UserError, match=sentence):
        find(batch, target_needed)


SOUND, VIDEO = torch.rand(B, 1, 9), torch.rand(B, 3, 6, 4, 5)
# Each with its project, what a network takes, what a deficit gets, and the target.
SAID: dict[str, tuple[Any, Project, list[Tensor], list[Tensor], Tensor]] = {
    "the third": ((LEFT, INDEX, TARGET), Project(target=2), [LEFT], [LEFT], TARGET),
    "one image of two": ((LEFT, RIGHT), Project(1, 0), [RIGHT], [RIGHT], LEFT),
    "a path": ({"a": [{"b.c": LEFT}, TARGET]}, Project("a.0.b.c", "a.1"), [LEFT], [LEFT], TARGET),
    "sound": ((SOUND, TARGET), Project(0, 1), [SOUND], [SOUND[:, 0]], TARGET),
    "video": ((VIDEO, TARGET), Project(0, 1, "BCTHW"), [VIDEO], [VIDEO.movedim(1, 2)], TARGET),
    "colours last": (
        (LEFT.movedim(1, -1), TARGET), Project(axes="BHWC"), [LEFT.movedim(1, -1)], [LEFT], TARGET
    ),
    "views last": (
        (torch.stack([LEFT, RIGHT], -1), TARGET), Project(0, 1, "BCHWV"),
        [LEFT, RIGHT], [LEFT, RIGHT], TARGET,
    ),
    "sound and picture": (
        {"s": SOUND, "p": LEFT, "y": TARGET}, Project(["s", "p"]),
        [SOUND, LEFT], [SOUND[:, 0], LEFT], TARGET,
    ),
    "regression": ((SOUND, SOUND[:, 0]), Project(0, 1), [SOUND], [SOUND[:, 0]], SOUND[:, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_a_project_says_is_found_and_put_back(name):
    batch, project, inputs, images, target = SAID[name]
    found, _ = find(batch, True, project)
    assert all(map(same, found.inputs, inputs)) and same(found.target, target)
    laid_out, put_back = find(batch, True, project, as_images=True)
    assert all(map(same, laid_out.inputs, images)) and len(laid_out.inputs) == len(inputs)
    assert same(put_back(laid_out), batch)
    changed = put_back(laid_out.with_inputs(view + 1 for view in laid_out.inputs))
    again, _ = find(changed, True, project)
    assert all(same(new, old + 1) for new, old in zip(again.inputs, inputs, strict=True))
    two = join([found.first(1), found.first(2)])
    assert all(
        torch.equal(view, one[[0, 0, 1]]) for view, one in zip(two.inputs, inputs, strict=True)
    )


@pytest.mark.parametrize(
    ("batch", "project", "sentence"),
    [
        ((LEFT, TARGET), Project(7), r"inputs=7 of Project names no tensor of a batch that is tup"),
        ({"pixels": LEFT}, Project("pixel"), "inputs='pixel' .* did you mean 'pixels'"),
        ({"a": {"b": LEFT}}, Project("a"), r"inputs='a' of Project names no .* 'a\.b'"),
        ((LEFT, TARGET), Project(0, "label"), "target='label' of Project names no tensor"),
        ((LEFT, TARGET[:2]), Project(0, 1), r"target=1 of Project is int64 \[2\] in a batch of 3"),
        ((LEFT, SOUND[:2]), Project([0, 1]), "inputs of Project must all be tensors"),
        ((LEFT, TARGET), Project(0, 1, "BHW"), "has 3 letters, but the input 0 is float32"),
        ((LEFT, SOUND), Project([0, 1], axes=["BVHW", "BCT"]), "all views .V. in one tensor"),
        ((LEFT, SOUND), Project([0, 1], axes=["BCHW"]), "lists 1 inputs, but there are 2"),
    ],
)
def test_what_a_project_says_has_to_be_there(batch, project, sentence):
    with pytest.raises(UserError, match=sentence):
        find(batch, False, project)
