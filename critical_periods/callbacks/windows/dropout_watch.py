"""Finds what drops activations in a network by what its forward pass does."""

import pickle
import random
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from critical_periods.callbacks.windows.dropout import DROPS, dropout_settings
from critical_periods.callbacks.windows.repeated_passes import Drawing, is_random
from critical_periods.core.internals import (
    around_calls,
    compiles_functions,
    is_compiled,
    is_redirected,
)
from critical_periods.core.restoring import generator_state
from critical_periods.core.trees import tensors_in

# Functions of torch that drop by a probability, and those whose draws are no mask.
_DROPPING = re.compile("drop|attention|lstm|gru|rnn")
_SAMPLING = re.compile(
    "normal|randn|randint|randperm|multinomial|exponential|poisson|gamma|gumbel|rrelu|pool"
)


class Drop(NamedTuple):
    """Something random in a network that no setting switches off.

    Attributes:
        module: the innermost one in whose forward pass it is.
        function: of torch that draws, or ``random numbers``.
        is_noise: whether what it draws is no mask.
    """

    module: nn.Module
    function: str
    is_noise: bool = False


class DropoutWatch:
    """Finds what drops in steps beside what :func:`dropout_settings` switches.

    The states of the random generators are compared from call to call, which draws nothing. Where
    a module has drawn random numbers, its forward pass is repeated on the same input with other
    draws, all settings in it off: what then differs is random still. It regularises (drops, or
    adds noise) if it draws a mask, is called after dropout, or does not differ in evaluation mode.
    What does there, too, is part of a model (the noise of a variational autoencoder). The step
    itself goes on as without that.

    Random numbers of the step itself (mixup, the time steps of a diffusion) other than of a
    function called after dropout, and of modules without parameters that take what depends on none
    (augmentation), are left alone.

    Args:
        root: the LightningModule whose steps they are.
    """

    def __init__(self, root: nn.Module) -> None:
        self.found: list[Drop] = []
        self.of_model: list[Drop] = []
        """What is random, but not taken for a regulariser."""
        self._root = root
        self._within: list[nn.Module] = []
        # The modules that have drawn in the call that they are in.
        self._drawn: set[nn.Module] = set()
        self._tried: set[tuple[nn.Module, bool]] = set()
        self._end = ExitStack()
        self._is_idle = self._closely = False
        devices = {parameter.device for parameter in root.parameters()}
        self._devices = [device for device in devices if device.type not in ("cpu", "meta")]
        held = (value for part in root.modules() for value in vars(part).values())
        self._generators = [one for one in held if generator_state(one) is not None]

    def start(self, closely: bool) -> None:
        """Begins with a step.

        Args:
            closely: whether Python's and NumPy's numbers are looked at in each module. Their
                states take longer to read than a layer to compute.
        """
        self._closely = closely
        self._state, self._others = self._numbers(), _other_numbers()
        compiled = [part for part in self._root.modules() if is_compiled(part)]
        # What runs compiled is compiled anew where somebody looks into it.
        inside = {part for whole in compiled for part in whole.modules() if part is not whole}
        for module in self._root.modules():
            if module not in inside:
                self._end.callback(around_calls(module, self._enter, self._leave))
        if not compiled and not compiles_functions():
            read = lambda: b"" if self._is_idle or self._within else self._numbers()  # noqa: E731
            self._end.enter_context(Drawing(read, self._drawn_in_step))

    def stop(self) -> None:
        """Ends with the forward pass of the step, or where it fails."""
        self._end.close()
        self._within.clear()
        self._drawn.clear()

    def _drawn_in_step(self, function: str, numbers: Sequence[float]) -> None:
        """Notes what a function drops in the step itself, which cannot be repeated."""
        if _DROPPING.search(function) and not _is_own(self._root, numbers):
            self.found.append(Drop(self._root, function))

    def _compare(self, whole: bool) -> None:
        """Notes that the innermost module has drawn since the last time, if it has."""
        before, self._state = (self._state, self._others), self._numbers()
        if self._closely or whole:
            self._others = _other_numbers()
        if self._within and before != (self._state, self._others):
            self._drawn.add(self._within[-1])

    def _enter(self, module: nn.Module) -> None:
        # Under DDP a call of the LightningModule is its step.
        if not self._is_idle and not (module is self._root and is_redirected(module)):
            self._compare(not self._within)
            self._within.append(module)

    def _leave(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._is_idle or not self._within or self._within[-1] is not module:
            return
        self._compare(len(self._within) == 1)
        outermost = self._within[0]
        self._within.pop()
        if module not in self._drawn:
            return
        on_features = any(one.requires_grad for one in tensors_in((args, kwargs)))
        learns = on_features or next(outermost.parameters(), None) is not None
        if (module, learns) not in self._tried:
            self._tried.add((module, learns))
            self._is_idle = True
            self._judge(module, args, kwargs, learns)
            self._is_idle = False

    def _judge(self, module: nn.Module, args: Any, kwargs: dict[str, Any], learns: bool) -> None:
        """Finds out whether a module that has drawn drops or adds noise."""
        undo = [generator_state(one) for one in self._generators]
        differs, names = is_random(module, args, kwargs, self._numbers)
        dropping = next((name for name in names if _DROPPING.search(name)), "")
        masking = next((name for name in names if not _SAMPLING.search(name)), "")
        is_dropout = bool(dropping or DROPS.search(type(module).__name__))
        is_noise = bool(names) and not masking and not is_dropout
        drop = Drop(module, dropping or masking or [*names, "random numbers"][0], is_noise)
        if differs is None:
            self.found += [] if _is_own(module) else [drop]
        elif differs and (is_dropout or learns):
            is_of_model = (
                is_noise and is_random(module, args, kwargs, self._numbers, training=False)[0]
            )
            (self.of_model if is_of_model else self.found).append(drop)
        for restore in filter(None, undo):
            restore()

    def _numbers(self) -> bytes:
        """The states of torch's generators, and of those that modules hold."""
        states = [torch.default_generator.get_state()]
        states += [torch.get_device_module(one).get_rng_state(one) for one in self._devices]
        own = map(_state_of, self._generators)
        return b"".join([*(state.numpy().tobytes() for state in states), *own])


def _other_numbers() -> tuple[Any, ...]:
    of_numpy: Any = np.random.get_state()
    return random.getstate(), of_numpy[1].tobytes(), of_numpy[2:]


def _state_of(generator: Any) -> bytes:
    if isinstance(generator, torch.Generator):
        return bytes(generator.get_state().numpy().tobytes())
    return pickle.dumps(generator)


def _is_own(module: nn.Module, numbers: Sequence[float] = ()) -> bool:
    """Whether a module has a probability above 0 and, where numbers are given, one of these."""
    rates = [held[name] for held, name in dropout_settings(module) if held[name] > 0]
    return bool(rates) and (not numbers or any(rate in numbers for rate in rates))
