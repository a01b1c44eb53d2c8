"""Whatever a forward pass does to a network, it is as before."""

import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.core.errors import UserError
from critical_periods.core.restoring import restored


class Holder:
    """An object of a project's own."""

    def __init__(self) -> None:
        self.output: Any = None
        self.outputs: list[Any] = []

    def keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.output = output
        self.outputs.append(output)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.embedding = nn.Embedding(3, 2, max_norm=0.1)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("moving", torch.full((2,), torch.nan))
        self.plain, self.array = torch.zeros(2), np.zeros(2)
        self.number, self.nothing = 0, None
        self.list, self.dict, self.set = [1], {"a": [torch.zeros(1)]}, {1}  # type: ignore[var-annotated]
        self.deque, self.ordered = deque([1, 2], maxlen=2), OrderedDict(a=1, b=2)
        self.torch, self.numpy = torch.Generator(), np.random.default_rng(0)
        self.old_numpy, self.python = np.random.RandomState(0), random.Random(0)
        self.holder, self.data = Holder(), TensorDataset(torch.zeros(2))
        self.unregistered = [nn.Linear(2, 2)]


def in_place(name: str) -> Callable[[Network], Any]:
    return lambda network: getattr(network, name).add_(1)


def closure(network: Network) -> Callable[[], Any]:
    seen: list[Any] = []
    network.layer.register_forward_hook(lambda module, args, output: seen.append(output))
    return lambda: len(seen)


def bound(network: Network) -> Callable[[], Any]:
    holder = Holder()
    network.layer.register_forward_hook(holder.keep)
    return lambda: (holder.output, len(holder.outputs))


def given(network: Network) -> Callable[[], Any]:
    seen: dict[str, Any] = {}
    network.layer.register_forward_hook(
        partial(lambda found, *args: found.update(x=1), seen)  # type: ignore[misc]
    )
    return lambda: len(seen)


# What a forward pass may do to it.
TRACES: dict[str, Callable[[Network], Any]] = {
    "attribute": lambda n: setattr(n, "number", n.number + 1),
    "new attribute": lambda n: setattr(n, "features", torch.ones(1, requires_grad=True) * 2),
    "attribute that is gone": lambda n: delattr(n, "nothing"),
    "module": lambda n: setattr(n, "head", nn.Linear(2, 2)),
    "other module": lambda n: setattr(n, "layer", nn.Linear(2, 2)),
    "frozen": lambda n: n.layer.requires_grad_(False),
    "mode": lambda n: n.norm.train(not n.norm.training),
    "statistics": lambda n: n.norm.train()(torch.randn(4, 2)),
    "gradient": lambda n: n.layer(torch.ones(1, 2)).sum().backward(),
    "hook": lambda n: n.layer.register_forward_hook(print),
    "buffer in place": in_place("steps"),
    "buffer of NaN": lambda n: n.moving.fill_(1),
    "buffer assigned": lambda n: setattr(n, "steps", n.steps + 1),
    "buffer registered": lambda n: n.register_buffer("late", torch.ones(1)),
    "parameter's data": lambda n: setattr(n.layer.weight, "data", n.layer.weight.data * 2),
    "parameter in place": lambda n: n.layer.weight.data.mul_(2),
    "parameter assigned": lambda n: setattr(n.layer, "weight", nn.Parameter(torch.ones(2, 2))),
    "embedding": lambda n: n.embedding(torch.tensor([0, 1])),
    "tensor in place": in_place("plain"),
    "array in place": lambda n: n.array.__iadd__(1),
    "list": lambda n: n.list.append(torch.zeros(1)),
    "list of a dict": lambda n: n.dict["a"].append(1),
    "tensor of a list of a dict": lambda n: n.dict["a"][0].add_(1),
    "dict": lambda n: n.dict.update(b=1),
    "set": lambda n: n.set.add(2),
    "deque": lambda n: n.deque.append(3),
    "order": lambda n: n.ordered.move_to_end("a"),
    "generator of torch": lambda n: torch.rand(1, generator=n.torch),
    "generator of NumPy": lambda n: n.numpy.normal(),
    "old generator of NumPy": lambda n: n.old_numpy.normal(),
    "generator of Python": lambda n: n.python.random(),
    "object": lambda n: n.holder.keep(n, (), torch.zeros(1)),
    "module in a list": lambda n: n.unregistered[0].weight.data.zero_(),
}


def told(value: Any) -> Any:
    """All that is told of a value, to compare."""
    if isinstance(value, Tensor):
        grad = value.grad if value.is_leaf else None
        return id(value), repr(value), value.requires_grad, repr(grad)
    if isinstance(value, nn.Module):
        return told(vars(value))
    if isinstance(value, Holder):
        return told(vars(value))
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, dict):
        return [(key, told(child)) for key, child in value.items()]
    return list(map(told, value)) if isinstance(value, (list, deque)) else repr(value)


@pytest.mark.parametrize("trace", TRACES)
def test_a_network_is_as_it_was(trace: str):
    network = Network()
    before = told(network)
    with restored(network):
        assert told(network) == before
        TRACES[trace](network)
        assert told(network) != before
    assert told(network) == before
    # After an error, too.
    with pytest.raises(RuntimeError), restored(network):
        TRACES[trace](network)
        raise RuntimeError
    assert told(network) == before


@pytest.mark.parametrize("kind", [closure, bound, given])
def test_what_hooks_hold_on_to(kind: Any):
    network = Network()
    look = kind(network)
    before = look()
    with restored(network):
        network.layer(torch.ones(1, 2))
        assert look() != before
    assert look() == before


def test_what_has_not_changed_is_not_written():
    """Neither versions, which autograd watches, nor what belongs to others."""
    network = Network()
    network.elsewhere = type("Run", (), {"__module__": "wandb"})()
    network.elsewhere.calls = 0
    versions = [tensor._version for tensor in (*network.parameters(), *network.buffers())]
    with restored(network):
        network.elsewhere.calls += 1
        network.data.tensors[0].add_(1)
    assert network.elsewhere.calls == 1 and network.data.tensors[0].sum() == 2
    after = [tensor._version for tensor in (*network.parameters(), *network.buffers())]
    assert versions == after


def test_networks_without_shapes_yet_take_them():
    network = nn.Sequential(nn.LazyLinear(3))
    with restored(network):
        network(torch.zeros(1, 2))
    assert network[0].weight.shape == (3, 2)


CALLS, DRAWS, SEEN = 0, np.random.default_rng(1), [0]


def drawn() -> float:
    SEEN.append(1)
    return float(DRAWS.random())


class Remembering(nn.Module):
    """Remembers in its class, in its file and in counts."""

    calls, states, numbers = 0, [0], itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.own, self.inside = itertools.count(5), {"count": itertools.count(9)}

    def forward(self, x: float) -> Any:
        global CALLS
        CALLS += 1
        type(self).calls += 1
        self.states.append(1)
        return CALLS, self.calls, len(SEEN), drawn(), self.next(), next(self.inside["count"])

    def next(self) -> Any:
        return next(self.numbers), next(self.own)


def test_what_a_class_a_file_and_counts_remember_goes_on_as_before():
    module, alone = Remembering(), Remembering()
    expected = [alone(1) for _ in range(2)]
    with restored(module):
        before = [module(1) for _ in range(3)]
    assert [first - 2 for first, *_ in before] == [1, 2, 3]
    assert (CALLS, Remembering.calls, len(Remembering.states), len(SEEN)) == (2, 2, 3, 3)
    state = DRAWS.bit_generator.state
    with restored(alone):
        alone(1)
    assert DRAWS.bit_generator.state == state
    assert alone(1)[4:] == ((2, 7), 11) and expected[1][4:] == ((1, 6), 10)


class Cycling(nn.Module):
    """Goes round in its own cycles and those of its class, and sets what that did not have."""

    turns = itertools.cycle("abc")

    def __init__(self) -> None:
        super().__init__()
        self.own, self.fresh = itertools.cycle([1, 2, 3]), iter(range(9))
        self.inside = [itertools.cycle(range(2)), {"tuple": iter((4, 5, 6, 7, 8))}]

    def forward(self, x: float) -> Any:
        global MADE
        kind = type(self)
        if "made" not in vars(kind):
            kind.made, MADE = 0, [0]
        kind.made += 1
        MADE.append(kind.made)
        taken = self.own, self.fresh, self.inside[0], self.inside[1]["tuple"], kind.turns
        return [*map(next, taken), kind.made, len(MADE)]


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_cycles_and_what_a_class_or_a_file_was_given_go_on_as_before(calls: int):
    def run(looks: bool) -> Any:
        if "made" in vars(Cycling):
            del Cycling.made, globals()["MADE"]
        Cycling.turns = itertools.cycle("abc")
        module, found = Cycling(), []
        for call in range(calls + 1):
            if call == calls and looks:
                with restored(module):
                    for _ in range(min(4, 5 - calls)):
                        module(1)
                assert ("made" in vars(Cycling)) is ("MADE" in globals()) is (calls > 0)
            found.append(module(1))
        return found

    assert run(True) == run(False)


def counting() -> Any:
    yield from range(9)


@pytest.mark.parametrize(
    "iterator", [counting, lambda: zip(range(9)), lambda: iter(DataLoader([1.0, 2.0]))]
)
def test_iterators_that_cannot_go_back_are_refused(iterator: Any):
    module = nn.Identity()
    module.ahead = taken = iterator()
    with restored(module):
        module(torch.ones(1))
    assert module.ahead is taken
    with pytest.raises(UserError, match=r"from 'ahead', a .*cannot go back"), restored(module):
        next(module.ahead)
    assert module.ahead is taken and len([*taken]) in (2, 9)
