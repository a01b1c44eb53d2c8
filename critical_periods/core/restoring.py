"""What a forward pass leaves behind in a network or in a DataModule, taken back."""

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from critical_periods.core.iterators import stand_in

# Larger tensors and arrays that are no parameters are data, which a forward pass does not change.
_LARGEST = 2**28  # bytes
_PLAIN = (str, bytes, int, float, type, ModuleType)
_REMEMBERED = (int, float, bool, str, tuple, list, dict, set, deque, type(None), np.ndarray)
# What derives from classes of these is data or the training itself, not what a network remembers.
_NOT_OURS = {"torch", "pytorch_lightning", "lightning", "lightning_fabric"}


@contextmanager
def restored(*owners: Any) -> Iterator[None]:
    """A context after which modules, or other objects, hold what they held before it.

    That is, in a module and in those within it: attributes, parameters, buffers and hooks are the
    same objects as before and have the same values, ``requires_grad`` and ``grad`` too; lists,
    dicts, sets and arrays have the same content; NumPy's, Python's and torch's generators of their
    own go on as if nothing had been drawn, and iterators as if nothing had been taken: counts and
    cycles of itertools, and those of lists, tuples and ranges (others, such as generators of a
    ``yield``, are refused once something is taken). What hooks hold on to is kept, too, the
    attributes of objects whose classes come from a package that a module comes from, and what such
    a module's class, and globals of its file that its methods name, hold; what these did not have
    before is gone. The global random state is not kept, and data sets, loaders, tensors of more
    than 256 MiB that are no parameters and modules whose parameters have no shape yet are left
    alone.

    Nothing is written that has not changed, so compiled code finds its guards as they were.

    Args:
        owners: modules, or objects whose attributes are kept.

    Raises:
        UserError: as something is taken from an iterator that cannot go back.

    Example:
        >>> class Counting(nn.Identity):
        ...     calls = 0
        ...     def forward(self, x):
        ...         self.calls += 1
        ...         return x
        >>> module = Counting()
        >>> with restored(module):
        ...     _ = module(torch.ones(1)), module(torch.ones(1))
        >>> module.calls
        0
    """
    parts = [part for owner in owners for part in _modules(owner)]
    kept = _Kept({_package(type(part)) for part in parts})
    for owner in owners:
        kept.add_attributes(owner)
    for kind in {base for part in parts for base in type(part).__mro__}:
        kept.add_class(kind)
    try:
        yield
    finally:
        kept.restore()


class _Kept:
    """Values, each with what puts it back."""

    def __init__(self, packages: set[str]) -> None:
        self._packages = packages - _NOT_OURS
        self._values: dict[int, Any] = {}  # the values themselves, lest a number be used again
        self._undo: list[Callable[[], None]] = []

    def restore(self) -> None:
        with torch.no_grad(), torch.inference_mode(False):
            for undo in self._undo:
                undo()

    def add_attributes(self, owner: Any, deep: bool = True) -> None:
        if id(owner) in self._values:
            return
        self._values[id(owner)] = owner
        if isinstance(owner, nn.Module):
            if any(is_lazy(one) for one in owner.parameters(recurse=False)):
                return
            # Scripted modules hold theirs elsewhere.
            for tensor in chain(owner.parameters(recurse=False), owner.buffers(recurse=False)):
                self._add(tensor, deep)
        self._add(getattr(owner, "__dict__", None), deep)

    def add_class(self, kind: type) -> None:
        """Adds what a third party's class, and the globals that its methods name, hold."""
        if _package(kind) not in self._packages:
            return
        self._add_names(partial(setattr, kind), partial(delattr, kind), vars(kind))
        functions = [one for one in vars(kind).values() if isinstance(one, FunctionType)]
        for function in functions:
            held, named = function.__globals__, _named_in(function.__code__)
            # Those of the same file may be called.
            called = (one for name in named if isinstance(one := held.get(name), FunctionType))
            functions += [one for one in called if one.__globals__ is held and one not in functions]
            self._add_names(held.__setitem__, held.__delitem__, held, named)

    def _add_names(
        self,
        put: Callable[[str, Any], Any],
        remove: Callable[[str], Any],
        held: Mapping[str, Any],
        names: set[str] | None = None,
    ) -> None:
        """Adds what is held by names, by default by all, some of which may be missing so far."""
        self._undo.append(partial(_remove_names, remove, held, {*held}, names))
        now = {name: value for name, value in held.items() if names is None or name in names}
        for name, value in now.items():
            if _is_plain_state(name, value):
                self._undo.append(partial(_put_name, put, held, name, value))
                if (other := stand_in(value, name)) is not None:
                    put(name, other)
                else:
                    self._add(value, deep=False)

    def _add(self, value: Any, deep: bool) -> None:
        if isinstance(value, nn.Module):
            self.add_attributes(value)
            return
        if id(value) in self._values or isinstance(value, _PLAIN):
            return
        self._values[id(value)] = value
        inside: Iterable[Any] = ()
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray) and value.nbytes <= _LARGEST:
            self._undo.append(partial(_put_array, value, value.copy()))
        elif isinstance(value, dict):
            self._undo.append(partial(_put_mapping, value, dict(value)))
            self._replace_iterators(value, value.items())
            inside = value.values()
        elif isinstance(value, (list, deque)):
            self._undo.append(partial(_put_sequence, value, list(value)))
            self._replace_iterators(value, enumerate(value))
            inside = value
        elif isinstance(value, set):
            self._undo.append(partial(_put_set, value, set(value)))
        elif isinstance(value, (tuple, Mapping)):
            inside = value.values() if isinstance(value, Mapping) else value
        elif (undo := generator_state(value)) is not None:
            self._undo.append(undo)
        elif deep and isinstance(value, (FunctionType, MethodType, partial)):
            inside = _held_by(value)
        elif deep and self._is_state(type(value)):
            del self._values[id(value)]
            self.add_attributes(value, deep=False)
        for one in list(inside):
            self._add(one, deep)

    def _replace_iterators(self, holder: Any, items: Iterable[tuple[Any, Any]]) -> None:
        """Has copies of iterators go on, as these cannot go back."""
        for key, value in list(items):
            if (other := stand_in(value, key)) is not None:
                holder[key] = other

    def _is_state(self, kind: type) -> bool:
        """Whether an object is likely to hold what a network remembers, and nothing else."""
        roots = [_package(base) for base in kind.__mro__]
        return roots[0] in self._packages and not _NOT_OURS.intersection(roots)

    def _add_tensor(self, tensor: Tensor) -> None:
        alias = tensor.detach()
        size = alias.numel() * alias.element_size()
        if alias.is_meta or alias.layout != torch.strided or alias.is_inference():
            return
        if isinstance(tensor, nn.Parameter) or size <= _LARGEST:
            self._undo.append(partial(_put_tensor, tensor, alias, alias.clone()))
        if tensor.is_leaf:
            self._undo.append(partial(_put_grad, tensor, tensor.grad, tensor.requires_grad))


def _is_plain_state(name: str, value: Any) -> bool:
    """Whether a class or a file is likely to remember something by a name."""
    if name.startswith("__"):
        return False
    of_arrays = isinstance(value, (Tensor, np.ndarray)) or generator_state(value) is not None
    return type(value) in _REMEMBERED or of_arrays or stand_in(value, name) is not None


def _named_in(code: CodeType) -> set[str]:
    """Globals, and attributes, that a function names, those within it too."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return {*code.co_names}.union(*map(_named_in, inner))


def _put_name(
    put: Callable[[str, Any], Any], now: Mapping[str, Any], name: str, value: Any
) -> None:
    if now.get(name) is not value:
        put(name, value)


def _remove_names(
    remove: Callable[[str], Any], held: Mapping[str, Any], old: set[str], names: set[str] | None
) -> None:
    for name in {*held} - old:
        if (names is None or name in names) and not name.startswith("__"):
            remove(name)


def _put_tensor(tensor: Tensor, alias: Tensor, value: Tensor) -> None:
    if tensor.data_ptr() != alias.data_ptr() or tensor.shape != alias.shape:
        tensor.data = alias
    # By their bits, as NaN equals nothing.
    bits, were = (one.reshape(-1).view(torch.uint8) for one in (alias, value))
    if not torch.equal(bits, were):
        alias.copy_(value)


def _put_grad(tensor: Tensor, grad: Tensor | None, requires_grad: bool) -> None:
    if tensor.grad is not grad:
        tensor.grad = grad
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _put_array(array: np.ndarray, value: np.ndarray) -> None:
    if array.dtype.hasobject or not np.array_equal(array, value):
        array[...] = value


def _put_mapping(mapping: dict[Any, Any], saved: dict[Any, Any]) -> None:
    same_keys = list(mapping) == list(saved)
    if not same_keys or any(mapping[key] is not value for key, value in saved.items()):
        mapping.clear()
        mapping.update(saved)


def _put_sequence(sequence: Any, saved: list[Any]) -> None:
    if [*map(id, sequence)] != [*map(id, saved)]:
        sequence.clear()
        sequence.extend(saved)


def _put_set(found: set[Any], saved: set[Any]) -> None:
    if found != saved:
        found.clear()
        found.update(saved)


def generator_state(value: Any) -> Callable[[], Any] | None:
    """What gives a random generator its present state back; None where ``value`` is none."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return partial(setattr, bits, "state", copy.deepcopy(bits.state))
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    return None


def _held_by(function: Any) -> list[Any]:
    """What a function of a hook can reach: the variables round it, its object, its arguments."""
    if isinstance(function, partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, MethodType):
        return [function.__self__]
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not yet set
            continue
    return found


def _modules(owner: Any) -> Iterable[Any]:
    return owner.modules() if isinstance(owner, nn.Module) else [owner]


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
