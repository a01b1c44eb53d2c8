"""Calls of modules: through torch.func, compiled, by a wrapper, and before and after each."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn


@contextmanager
def plain_for_func(network: nn.Module) -> Iterator[None]:
    """Lets torch.func go through checkpointed activations, backward hooks and recurrent layers.

    Activations are kept instead of computed anew, the hooks are not called, and recurrent layers
    run by torch's own kernels (oneDNN's have no such derivative, cuDNN's none in evaluation mode).
    """
    recurs = any(isinstance(one, nn.RNNBase) for one in network.modules())
    mkldnn, cudnn = torch._C._get_mkldnn_enabled(), torch.backends.cudnn.enabled
    hooks = [
        (one, one._backward_hooks, one._backward_pre_hooks)
        for one in network.modules()
        if one._backward_hooks or one._backward_pre_hooks
    ]
    names = ("_checkpoint_hook", "CheckpointFunction")
    saved = {name: getattr(torch.utils.checkpoint, name) for name in names}
    try:
        for one, *_ in hooks:
            one._backward_hooks, one._backward_pre_hooks = OrderedDict(), OrderedDict()
        setattr(torch.utils.checkpoint, names[0], lambda *args: nullcontext())
        setattr(torch.utils.checkpoint, names[1], _Uncheckpointed)
        if recurs:
            torch._C._set_mkldnn_enabled(False)
            torch.backends.cudnn.enabled = False
        yield
    finally:
        if recurs:
            torch._C._set_mkldnn_enabled(mkldnn)
            torch.backends.cudnn.enabled = cudnn
        for name, value in saved.items():
            setattr(torch.utils.checkpoint, name, value)
        for one, of_backward, before_backward in hooks:
            one._backward_hooks, one._backward_pre_hooks = of_backward, before_backward


class _Uncheckpointed:
    """Stands in for the function of checkpoints with ``use_reentrant``."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module run compiled, by ``torch.compile`` or by its own ``compile``."""
    by_itself = getattr(module, "_compiled_call_impl", None) is not None
    return by_itself or type(module).__name__ == "OptimizedModule"


def compiles_functions() -> bool:
    """Whether ``torch.compile`` was called in this process, be it for a module or for a function.

    What watches the functions of torch that are called would have a function compiled anew.
    """
    # Some modules of torch import the compiler without having anything to compile.
    compiler = sys.modules.get("torch._dynamo")
    return compiler is not None and any(compiler.eval_frame.cached_backends.values())


def is_redirected(module: nn.Module) -> bool:
    """Whether a LightningModule's ``forward`` is its step for now, as a wrapper such as DDP calls.

    Lightning puts the step into the instance for the wrapper's call, and its own ``forward`` back.
    """
    own = vars(module).get("forward")
    return own is not None and getattr(own, "__func__", own) is not type(module).forward


def around_calls(
    module: nn.Module,
    before: Callable[[nn.Module], None],
    after: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None],
) -> Callable[[], None]:
    """Calls functions before and after each call of a module, also where that fails.

    Hooks of a module with its own ``compile`` would be compiled with it.

    Returns:
        What ends that.
    """
    name = "_compiled_call_impl"
    if (compiled := getattr(module, name, None)) is None:
        ends = ExitStack()
        first = module.register_forward_pre_hook(lambda *_: before(module))
        last = module.register_forward_hook(
            lambda module, args, kwargs, result: after(module, args, kwargs),
            with_kwargs=True,
            always_call=True,
        )
        ends.callback(first.remove)
        ends.callback(last.remove)
        return ends.close

    def call(*args: Any, **kwargs: Any) -> Any:
        before(module)
        try:
            return compiled(*args, **kwargs)
        finally:
            after(module, args, kwargs)

    setattr(module, name, call)
    return partial(setattr, module, name, compiled)
