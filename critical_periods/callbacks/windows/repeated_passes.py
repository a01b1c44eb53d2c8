"""Whether a forward pass is random: it is repeated, and leaves nothing behind."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from critical_periods.callbacks.windows.dropout import dropout_settings
from critical_periods.core.trees import tensors_in

# A module that drops seldom, a layer once in ten passes, has to be seen to do so.
_PASSES = 48


def is_random(
    module: nn.Module,
    args: Any,
    kwargs: dict[str, Any],
    numbers: Callable[[], bytes],
    training: bool = True,
) -> tuple[bool | None, list[str]]:
    """Whether a forward pass is random with settings off (None if it fails), and by what.

    Two rounds of passes begin in the same state, which changes from pass to pass, such as a
    counter, and differ in what they draw.

    Args:
        module: whose pass it is.
        args: of a call of it.
        kwargs: likewise.
        numbers: gives the states of the random generators.
        training: whether in the modes that its parts are in, or else in evaluation mode.
    """
    names: list[str] = []

    def again(states: list[_State]) -> list[Tensor]:
        _put(module, states)
        # What a forward pass writes into, such as a cache of keys, too.
        with _DetachedCopies():
            given = copy.deepcopy((args, kwargs))
        result = tensors_in(module(*given[0], **given[1]))
        states[:] = _states(module)
        return result

    # Compiled code is left to training.
    quiet = isolate_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager")
    with ExitStack() as stack:
        watch = Drawing(numbers, lambda function, _: names.append(function))
        for one in (*quiet, _as_it_was(module), watch):
            stack.enter_context(one)
        for part in () if training else module.modules():
            part.training = False
        if hasattr(module, "log_dict"):  # a LightningModule, of either package
            vars(module).update(dict.fromkeys(("log", "log_dict"), _ignore))
        rounds = _states(module, True), _states(module, True)
        try:
            for _ in range(_PASSES):
                first, second = map(again, rounds)
                if not first:
                    return None, names
                if not _alike(first, second):
                    return True, names
        except Exception:  # of a third party's module, which may not be called twice
            return None, names
    return False, names


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stands in for the log of passes that are no part of training."""


class Drawing(TorchFunctionMode):
    """Tells of each function of torch that draws, and of the floats that it was given."""

    def __init__(
        self, read: Callable[[], bytes], tell: Callable[[str, Sequence[float]], None]
    ) -> None:
        super().__init__()
        self._read, self._tell = read, tell

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs, before = kwargs or {}, self._read()
        result = func(*args, **kwargs)
        if self._read() != before:
            numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, float)]
            self._tell(getattr(func, "__name__", ""), numbers)
        return result


class _DetachedCopies(TorchFunctionMode):
    """Lets tensors of a graph be copied, which torch refuses."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


# Attributes and buffers of a module.
_State = tuple[dict[str, Any], dict[str, Any]]


def _states(module: nn.Module, cloned: bool = False) -> list[_State]:
    """What a forward pass may change in a module and in those within it."""
    states = [(dict(part.__dict__), dict(part._buffers)) for part in module.modules()]
    for _, buffers in states if cloned else ():
        buffers.update({name: one if one is None else one.clone() for name, one in buffers.items()})
    return states


def _put(module: nn.Module, states: list[_State]) -> None:
    for part, (attributes, buffers) in zip([*module.modules()], states, strict=True):
        for held, saved in ((part.__dict__, attributes), (part._buffers, buffers)):
            held.clear()
            held.update(saved)


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Switches all settings of dropout off, and gives them and all attributes their values back."""
    saved = _states(module)
    settings = [one for part in module.modules() for one in dropout_settings(part)]
    before = [held[name] for held, name in settings]
    try:
        for held, name in settings:
            held[name] = 0.0
        yield
    finally:
        _put(module, saved)
        for (held, name), value in zip(settings, before, strict=True):
            held[name] = value


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether results agree, but for what kernels that are not deterministic make of them."""
    return len(first) == len(second) and all(map(_close, first, second))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.numel() or not a.is_floating_point():
        return a.shape == b.shape
    tolerance = max(1e-4, 4 * torch.finfo(a.dtype).eps)
    a, b = (one.to(torch.float64).nan_to_num() for one in (a, b))
    return bool((a - b).abs().max() <= tolerance * a.abs().max())
