"""What drops activations in a network: by its settings, and by what a forward pass does."""

import copy
import pickle
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from critical_periods.core.internals import (
    around_calls,
    compiles_functions,
    is_compiled,
    is_redirected,
)
from critical_periods.core.restoring import generator_state
from critical_periods.core.trees import tensors_in

# Modules of torch that drop by a probability p, or by one called dropout.
_BY_P = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_BY_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)
# Classes that drop, of whichever package, and what they may call their probability.
_DROPS = re.compile("drop|stochastic_?depth", re.IGNORECASE)
_OWN_NAMES = ("p", "prob", "probability", "rate", "ratio")
# Attributes of any class that are one: dropout, attention_dropout, hidden_dropout_prob, dropout_p,
# drop_rate, drop_path_rate, layerdrop, stochastic_depth_prob, ….
_PROBABILITY = re.compile(
    r"(.*_)?(drop|drop_?out|drop_?path|drop_?block|drop_?connect|layer_?drop|stochastic_depth)"
    r"(_(p|probs?|probability|rate|ratio))?",
    re.IGNORECASE,
)
# Functions of torch that drop by a probability, and those whose draws are no mask.
_DROPPING = re.compile("drop|attention|lstm|gru|rnn")
_SAMPLING = re.compile(
    "normal|randn|randint|randperm|multinomial|exponential|poisson|gamma|gumbel|rrelu|pool"
)
# A module that drops seldom, a layer once in ten passes, has to be seen to do so.
_PASSES = 48

Setting = tuple[dict[str, Any], str]


def dropout_settings(module: nn.Module) -> list[Setting]:
    """What holds each probability of dropping in a module without its parts, and its name there.

    That is the module, or its ``config``, which those of transformers ask in each forward pass.
    """
    held = module.__dict__
    if isinstance(module, _BY_P + _BY_DROPOUT):
        return [(held, "p" if isinstance(module, _BY_P) else "dropout")]
    own_names = _OWN_NAMES if _DROPS.search(type(module).__name__) else ()
    numbers = [name for name, value in held.items() if isinstance(value, float)]
    found = [(held, name) for name in numbers if _PROBABILITY.fullmatch(name) or name in own_names]
    config = getattr(held.get("config"), "__dict__", {})
    names = [name for name, value in config.items() if isinstance(value, float)]
    return found + [(config, name) for name in names if _PROBABILITY.fullmatch(name)]


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
            self._end.enter_context(_Drawing(read, self._drawn_in_step))

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
        differs, names = self._differs(module, args, kwargs)
        dropping = next((name for name in names if _DROPPING.search(name)), "")
        masking = next((name for name in names if not _SAMPLING.search(name)), "")
        is_dropout = bool(dropping or _DROPS.search(type(module).__name__))
        is_noise = bool(names) and not masking and not is_dropout
        drop = Drop(module, dropping or masking or [*names, "random numbers"][0], is_noise)
        if differs is None:
            self.found += [] if _is_own(module) else [drop]
        elif differs and (is_dropout or learns):
            is_of_model = is_noise and self._differs(module, args, kwargs, False)[0]
            (self.of_model if is_of_model else self.found).append(drop)
        for restore in filter(None, undo):
            restore()

    def _differs(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], training: bool = True
    ) -> tuple[bool | None, list[str]]:
        """Whether a forward pass is random with settings off (None if it fails), and by what.

        Two rounds of passes begin in the same state, which changes from pass to pass, such as a
        counter, and differ in what they draw.
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
            watch = _Drawing(self._numbers, lambda function, _: names.append(function))
            for one in (*quiet, _as_it_was(module), watch):
                stack.enter_context(one)
            for part in () if training else module.modules():
                part.training = False
            if module is self._root:
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

    def _numbers(self) -> bytes:
        """The states of torch's generators, and of those that modules hold."""
        states = [torch.default_generator.get_state()]
        states += [torch.get_device_module(one).get_rng_state(one) for one in self._devices]
        own = map(_state_of, self._generators)
        return b"".join([*(state.numpy().tobytes() for state in states), *own])


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stands in for the log of passes that are no part of training."""


def _other_numbers() -> tuple[Any, ...]:
    of_numpy: Any = np.random.get_state()
    return random.getstate(), of_numpy[1].tobytes(), of_numpy[2:]


def _state_of(generator: Any) -> bytes:
    if isinstance(generator, torch.Generator):
        return bytes(generator.get_state().numpy().tobytes())
    return pickle.dumps(generator)


class _Drawing(TorchFunctionMode):
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


def _is_own(module: nn.Module, numbers: Sequence[float] = ()) -> bool:
    """Whether a module has a probability above 0 and, where numbers are given, one of these."""
    rates = [held[name] for held, name in dropout_settings(module) if held[name] > 0]
    return bool(rates) and (not numbers or any(rate in numbers for rate in rates))
