"""What drops activations in a network: by its settings, and by what a forward pass does."""

import copy
import pickle
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from critical_periods.core.internals import around_calls, is_compiled, is_redirected
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
# Functions of torch that drop by a probability, and those that draw what nothing is dropped by.
_DROPPING = re.compile("drop|attention|lstm|gru|rnn")
_SAMPLING = re.compile(
    "normal|randn|randint|randperm|multinomial|exponential|poisson|gamma|gumbel|rrelu|pool"
)
# A module that drops seldom, a layer once in ten passes, has to be seen to do so.
_PASSES = 64

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
    """Something that drops and that no setting switches off.

    Attributes:
        module: the innermost one in whose forward pass it does.
        function: of torch that does it; empty where it is not known.
    """

    module: nn.Module
    function: str


class DropoutWatch:
    """Finds what drops in a step beside what :func:`dropout_settings` switches.

    The states of the random generators are compared from call to call, which draws nothing. Where
    a module has drawn random numbers, its forward pass is repeated on the same input, with all
    settings in it off and batch norm's and other buffers kept: what then differs from pass to pass
    still drops. The step itself goes on as without that.

    Random numbers of the step itself (mixup, the time steps of a diffusion), of modules without
    parameters (augmentation) and of noise drop nothing and are left alone.

    Args:
        root: the LightningModule whose step it is.
    """

    def __init__(self, root: nn.Module) -> None:
        self.found: list[Drop] = []
        self._root = root
        self._within: list[nn.Module] = []
        # Modules that have drawn in the call that they are in: by which function, and whether by
        # numbers of theirs.
        self._drawn: dict[nn.Module, tuple[str, bool]] = {}
        self._tried: set[nn.Module] = set()
        self._end = ExitStack()
        self._is_idle = False
        devices = {parameter.device for parameter in root.parameters()}
        self._devices = [device for device in devices if device.type not in ("cpu", "meta")]
        held = (value for part in root.modules() for value in vars(part).values())
        self._generators = [one for one in held if generator_state(one) is not None]

    def start(self) -> None:
        """Begins with the step."""
        self._state = self._random_state()
        compiled = [part for part in self._root.modules() if is_compiled(part)]
        # What runs compiled is compiled anew where somebody looks into it.
        inside = {part for whole in compiled for part in whole.modules() if part is not whole}
        for module in self._root.modules():
            if module not in inside:
                self._end.callback(around_calls(module, self._enter, self._leave))
        if not compiled:
            self._end.enter_context(_Calls(self))

    def stop(self) -> None:
        """Ends with the forward pass of the step, or where it fails."""
        self._end.close()

    def compare(self, function: str = "", numbers: Sequence[float] = ()) -> None:
        """Notes what has been drawn since the last time, by this function if one is named."""
        if self._is_idle:
            return
        self._is_idle = True
        if (state := self._random_state()) != self._state:
            module = self._within[-1] if self._within else self._root
            is_own = _is_own(module, numbers if _DROPPING.search(function) else ())
            if not self._within and _DROPPING.search(function) and not is_own:
                # The step itself cannot be repeated.
                self.found.append(Drop(self._root, function))
            elif self._within and self._may_drop(function):
                _, were_own = self._drawn.get(module, ("", True))
                self._drawn[module] = function or "random numbers", is_own and were_own
        self._state, self._is_idle = state, False

    def _may_drop(self, function: str) -> bool:
        if _DROPPING.search(function) or _DROPS.search(type(self._within[-1]).__name__):
            return True
        learns = next(self._within[0].parameters(), None) is not None
        return learns and not _SAMPLING.search(function)

    def _enter(self, module: nn.Module) -> None:
        self.compare()
        # Under DDP a call of the LightningModule is its step.
        if not self._is_idle and not (module is self._root and is_redirected(module)):
            self._within.append(module)

    def _leave(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.compare()
        if self._is_idle or not self._within or self._within[-1] is not module:
            return
        self._within.pop()
        function, is_own = self._drawn.pop(module, ("", True))
        if function and module not in self._tried and type(module) not in _BY_P + _BY_DROPOUT:
            self._tried.add(module)
            self._is_idle = True
            undo = [generator_state(one) for one in self._generators]
            differs = _differs(module, args, kwargs)
            for restore in filter(None, undo):
                restore()
            if differs or (differs is None and not is_own):
                self.found.append(Drop(module, function))
            self._is_idle = False

    def _random_state(self) -> tuple[Any, ...]:
        states = [torch.default_generator.get_state()]
        states += [torch.get_device_module(one).get_rng_state(one) for one in self._devices]
        of_numpy: Any = np.random.get_state()
        others = random.getstate(), of_numpy[1].tobytes(), of_numpy[2:]
        own = map(_state_of, self._generators)
        return *(state.numpy().tobytes() for state in states), *others, *own


def _state_of(generator: Any) -> bytes:
    if isinstance(generator, torch.Generator):
        return bytes(generator.get_state().numpy().tobytes())
    return pickle.dumps(generator)


class _Calls(TorchFunctionMode):
    """Tells a watch of each function of torch that is called."""

    def __init__(self, watch: DropoutWatch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self._watch.compare()
        result = func(*args, **kwargs)
        numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, float)]
        self._watch.compare(getattr(func, "__name__", ""), numbers)
        return result


class _DetachedCopies(TorchFunctionMode):
    """Lets tensors of a graph be copied, which torch refuses."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _differs(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> bool | None:
    """Whether a module's forward pass drops by more than its settings; None if it fails."""
    settings = [one for part in module.modules() for one in dropout_settings(part)]
    before = [held[name] for held, name in settings]

    def again() -> list[Tensor]:
        with _as_it_was(module):
            # What a forward pass writes into, such as a cache of keys, too.
            with _DetachedCopies():
                given = copy.deepcopy((args, kwargs))
            return tensors_in(module(*given[0], **given[1]))

    # Compiled code is left to training.
    with isolate_rng(), torch.compiler.set_stance("force_eager"):
        try:
            for held, name in settings:
                held[name] = 0.0
            first = again()
            return any(not _alike(first, again()) for _ in range(_PASSES)) if first else None
        except Exception:  # of a third party's module, which may not be called twice
            return None
        finally:
            for (held, name), value in zip(settings, before, strict=True):
                held[name] = value


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Lets a forward pass change copies of the buffers, and gives attributes their values back."""
    saved = [(part, dict(part.__dict__), dict(part._buffers)) for part in module.modules()]
    try:
        for part, _, buffers in saved:
            copies = {name: one if one is None else one.clone() for name, one in buffers.items()}
            part._buffers.update(copies)
        yield
    finally:
        for part, attributes, buffers in saved:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether results agree, but for what kernels that are not deterministic make of them."""
    return len(first) == len(second) and all(map(_close, first, second))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.numel() or not a.is_floating_point():
        return a.shape == b.shape
    tolerance = max(1e-4, 4 * torch.finfo(a.dtype).eps)
    a, b = (one.to(torch.float64).nan_to_num() for one in (a, b))
    return bool((a - b).abs().max() <= tolerance * a.abs().max())


def _is_own(module: nn.Module, numbers: Sequence[float]) -> bool:
    """Whether a module has a probability above 0 and, where numbers are given, one of these."""
    rates = [held[name] for held, name in dropout_settings(module) if held[name] > 0]
    return bool(rates) and (not numbers or any(rate in numbers for rate in rates))
