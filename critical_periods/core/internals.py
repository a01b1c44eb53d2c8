"""Internals of Lightning, torch and jsonargparse that this package leans on, all in one place.

None of these is a promise of its package's, so each has a function here that says what it is for,
a test in ``tests/core/test_internals.py`` that notices when a release changes it, and an upper
bound on the package's version in ``pyproject.toml``.
"""

import copy
import gc
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from inspect import Parameter
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

C = TypeVar("C", bound=type)

# Lightning and torch, in training. A Trainer is Any where Lightning does not declare an attribute.


def in_precision(trainer: pl.Trainer | None, batch: Any) -> Any:
    """A batch in half or double precision, as the Trainer's plugin makes of what a loader yields.

    Lightning converts the loader's own batches before they are moved to the device. The loaders of
    this package yield indices, so their batches are converted when they are made.
    """
    return batch if trainer is None else trainer.precision_plugin.convert_input(batch)


def default_dtype(trainer: pl.Trainer | None) -> AbstractContextManager[Any]:
    """The default dtype of a forward pass in a Trainer's precision, without autocast.

    Monitors run a network outside of its steps. One that is double or half as a whole
    (``64-true``, ``bf16-true``) may make new tensors, as recurrent networks do, which have to be
    of its kind. In mixed precision a measurement is of the float32 weights.
    """
    plugin = None if trainer is None else trainer.precision_plugin
    if plugin is None or not str(getattr(plugin, "precision", "")).endswith("-true"):
        return nullcontext()
    return plugin.forward_context()


def transferred(trainer: Any, batch: Any, validating: bool) -> Any:
    """What a step would receive for a batch of a loader: in precision, on the device, after hooks.

    Monitors take batches of a third party's loader outside of Lightning's loops, but need to see
    what training or, where ``validating``, validation sees. The hooks of a project may ask the
    Trainer which it is.
    """
    was_training = trainer.training
    if validating:
        trainer.validating = True
    try:
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
        return trainer.strategy.batch_to_device(batch)
    finally:
        if was_training:
            trainer.training = True


def set_up_validation(trainer: pl.Trainer) -> None:
    """Has ``trainer.val_dataloaders`` made now; Lightning makes them for the first validation.

    A monitor of the validation split may be due epochs before that.
    """
    trainer.fit_loop.epoch_loop.val_loop.setup_data()


def with_own_workers(loader: Any) -> Any:
    """A copy of a loader that does not share its persistent workers, if it has any.

    Persistent workers draw on from where the last epoch left their random state, so another
    pass through them would change what training draws. The copy's end with the copy.
    """
    if getattr(loader, "persistent_workers", False):
        loader = copy.copy(loader)
        loader._iterator = None
    return loader


def separate(loader: Any) -> Any:
    """A copy of a loader that can be drawn from without a trace; None where it cannot be copied.

    Sampler, data set, transforms and their generators are copied as they are now; arrays and
    tensors of at least 1 MiB, which are data, are shared. Streams, open files and locks cannot be
    copied.
    """
    loader = with_own_workers(loader)
    large = {}
    seen, ahead = set(), [loader]
    while ahead:
        one = ahead.pop()
        if id(one) in seen or isinstance(one, (type, ModuleType, FunctionType, str)):
            continue
        seen.add(id(one))
        if isinstance(one, (torch.Tensor, np.ndarray)):
            if one.nbytes >= 2**20:
                large[id(one)] = one
        else:
            ahead += gc.get_referents(one)
    try:
        return copy.deepcopy(loader, large)
    except Exception:  # as many kinds as there are classes that refuse
        return None


class HasWorkers:
    """A loader around torch's, whose workers Lightning sends home at the end of a run.

    Lightning looks for an attribute ``_iterator``. Workers would else stay until Python happens to
    collect the run, and hold it up then.

    Attributes:
        workers: the loader of torch that has the workers.
    """

    workers: DataLoader[Any]

    @property
    def _iterator(self) -> Any:
        return self.workers._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self.workers._iterator = iterator


def stops_before_monitors(early_stopping: Any, trainer: pl.Trainer) -> bool:
    """Whether an EarlyStopping checks as training epochs end, where other callbacks go before it.

    By default Lightning decides so when training begins: where validation runs once an epoch. A
    monitor that measures the last epoch would not know then that it is the last.
    """
    if (chosen := early_stopping._check_on_train_epoch_end) is not None:
        return bool(chosen)
    # There is no such attribute where it is a time.
    interval = getattr(trainer, "val_check_interval", None)
    return interval == 1.0 and trainer.check_val_every_n_epoch == 1


def rate_attributes(finder: Any) -> list[str]:
    """Where a LearningRateFinder looks for a model's learning rate: in one of these attributes."""
    return [finder._attr_name] if finder._attr_name else ["lr", "learning_rate"]


def milestones(scheduler: Any) -> list[int]:
    """Epochs at which a scheduler changes, in order: MultiStepLR's, or SequentialLR's.

    Milestones that no epoch reaches are refused before training.
    """
    return sorted(getattr(scheduler, "milestones", getattr(scheduler, "_milestones", ())))


def reload_every_epoch(trainer: Any) -> Callable[[], None]:
    """Has the loaders made anew for each epoch, as the Trainer's setting of that name would.

    Lightning counts the batches of an epoch, and places validation, as it takes a loader. Epochs
    on a part of the data are shorter.

    Returns:
        What restores the user's setting.
    """
    name = "reload_dataloaders_every_n_epochs"
    restore = partial(setattr, trainer, name, getattr(trainer, name))
    trainer.reload_dataloaders_every_n_epochs = 1
    return restore


def finish_resumed_epoch(trainer: pl.Trainer, batches: int) -> None:
    """Has the epoch of a checkpoint count as done where the checkpoint is of its last batch.

    Lightning compares the batches that were done with those of the next epoch, and would go on in
    the middle of that if it has more. ``batches`` is no less than any epoch of the run has.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
        loop.batch_progress.current.completed = batches


def resume_in_place(trainer: Any) -> None:
    """Has a run that is resumed go on with the batch after the last that its checkpoint knows.

    To be called once the checkpoint is loaded, as the training loader is made. Three kinds of
    checkpoints are not resumed in place by Lightning alone:

    - of a run that stopped within an epoch (``max_steps``, ``max_time``, ``should_stop``), which
      counts it as done, as the hooks of an epoch's end were called: the rest would be left out;
    - of an epoch's end, in a run with ``max_steps``, which would end that epoch twice and so leave
      out the number of the next;
    - of an exception: its batch, which the loader has given out but which was not trained on,
      would be left out, or its epoch, if that was about to begin.
    """
    loop = trainer.fit_loop
    if not loop._loaded_from_state_dict:
        return
    epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
    for count in (epochs.total, epochs.current):
        count.ready = count.started
    ended = epochs.current.processed == epochs.current.ready
    if ended and batches.is_last_batch:
        loop._restarting = loop.epoch_loop.restarting = False
    elif ended and batches.current.processed:
        for count in (epochs.total, epochs.current):
            count.processed -= 1
            count.completed = min(count.completed, count.processed)
        loop.restarting = True
    # The loader follows the batches that were trained on.
    place = {"epoch": epochs.current.processed, "batches": batches.current.processed}
    for state in loop._combined_loader_states_to_load:
        if state.keys() == place.keys():
            state.update(place)


def epoch_sums(trainer: Any) -> dict[str, dict[str, torch.Tensor]]:
    """What is logged as means and the like of the training epoch so far, which no checkpoint holds.

    Tensors alone: metrics of torchmetrics have a state of their own.
    """
    results = trainer.fit_loop.epoch_loop._results
    return {
        key: {name: getattr(result, name).detach().cpu().clone() for name in result._defaults}
        for key, result in results.items()
        if result.is_tensor and result.meta.on_epoch and not result.has_reset
    }


def add_epoch_sums(
    trainer: Any, earlier: dict[str, dict[str, torch.Tensor]]
) -> dict[str, dict[str, torch.Tensor]]:
    """Adds what :func:`epoch_sums` gave to the sums of the first batch that follows.

    The same bits as if the epoch had not been interrupted: what is added to 0 is what it is.

    Returns:
        What is still to be added, as that batch has not logged it.
    """
    results, rest = trainer.fit_loop.epoch_loop._results, {}
    for key, states in earlier.items():
        result = results.get(key)
        if result is None:
            rest[key] = states
            continue
        for name, value in states.items():
            now = getattr(result, name)
            both = value.to(now.device), now
            is_sum = name == "cumulated_batch_size" or not (
                result.meta.is_max_reduction or result.meta.is_min_reduction
            )
            setattr(result, name, both[0] + both[1] if is_sum else result.meta.reduce_fx(*both))
    return rest


def batches_before_resuming(trainer: Any) -> int:
    """How many batches of its first epoch a run leaves out, as its checkpoint has them; else 0.

    To be asked as training starts.
    """
    loop = trainer.fit_loop
    return loop.epoch_loop.batch_progress.current.processed if loop.restarted_mid_epoch else 0


def measures_followed(trainer: Any) -> dict[str, float] | None:
    """The measures that schedulers follow, by their names, as far as they are known by now.

    Lightning steps such schedulers after it has saved an epoch's checkpoint, in which therefore
    these have to be. ``None`` where no scheduler follows any.
    """
    names = followed_by_schedulers(trainer)
    known = {name: float(of) for name, of in trainer.callback_metrics.items() if name in names}
    return known if names else None


def follow_measures(trainer: Any, measures: dict[str, float]) -> None:
    """Has schedulers that follow a measure go on where a checkpoint with these measures left them.

    Those that were to be stepped after it was saved are stepped now, or at the end of its epoch,
    where Lightning would leave them out. To be called as training starts.
    """
    loop = trainer.fit_loop
    trainer.callback_metrics.update(measures)
    loop._restarting = False
    for one in trainer.lr_scheduler_configs:
        is_behind = one.scheduler.last_epoch < loop.epoch_progress.current.processed
        if one.reduce_on_plateau and is_behind and one.monitor in measures:
            one.scheduler.step(measures[one.monitor])


def lacks_measures(trainer: Any) -> list[str]:
    """Measures that schedulers follow, but that the rest of a resumed epoch cannot give.

    They are means over the whole of it, or of a validation that was to come right after the batch
    of the checkpoint, which Lightning leaves out. To be asked as training starts.
    """
    loop, done = trainer.fit_loop.epoch_loop, batches_before_resuming(trainer)
    if not done:
        return []
    names = followed_by_schedulers(trainer)
    interval = trainer.val_check_batch or math.inf
    is_due = loop.restarted_on_train_batch_end and loop._should_check_val_epoch()
    is_last = done % interval == 0 and done + interval > trainer.num_training_batches
    return [name for name in names if name.startswith("train/") or (is_due and is_last)]


def followed_by_schedulers(trainer: Any) -> list[str]:
    """The measures that learning-rate schedulers of a Trainer follow."""
    return [one.monitor for one in trainer.lr_scheduler_configs if one.reduce_on_plateau]


def synchronises_batch_norm(trainer: Any) -> bool:
    """Whether the processes of a Trainer share the statistics of batch norm."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def connect(trainer: Any, model: pl.LightningModule | None, datamodule: Any) -> None:
    """Attaches data and a model to a Trainer and makes the optimisers, without training.

    The dry run of a config needs a Trainer whose callbacks find what they will find in training.
    The DataModule is set up already; the model, unless it is None, is set up here.
    """
    trainer.datamodule = datamodule
    if model is not None:
        model.trainer = trainer
        model.setup("fit")
        trainer.strategy.connect(model)
        trainer.strategy.setup_optimizers(trainer)


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


# Lightning's two names: `pytorch_lightning` and `lightning.pytorch` are two packages of the same
# code, and a Trainer or LightningCLI of one takes the other's classes for strangers.

_TWINS = {
    "Callback": "lightning.pytorch.callbacks.callback",
    "LightningDataModule": "lightning.pytorch.core.datamodule",
}


def under_both_names(ours: C) -> C:
    """A class decorator: what derives from ``pytorch_lightning`` is of ``lightning.pytorch``, too.

    The class gets the other package's base class of the same name as its last one, now or when that
    package is imported, whichever of them is imported first. It is not imported here: that takes
    seconds, and most projects use one name alone. Hooks that a class does not define do nothing
    in either package. Not for a LightningModule, most of whose methods work for their own Trainer.
    """
    (base,) = ours.__bases__
    watch = _Watch(ours, base.__name__)
    # Before the finders that find something, after which nobody is asked.
    sys.meta_path.insert(0, watch)
    watch.look()
    return ours


class _Watch:
    """A finder that finds no module, but sees that others are looked for."""

    def __init__(self, ours: type, name: str) -> None:
        self.ours, self.name = ours, name

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Looks whether the other package has got far enough, while it is being imported."""
        if name.startswith("lightning."):
            self.look()

    def look(self) -> None:
        """Adds the other package's base class, if there is one by now."""
        twin = getattr(sys.modules.get(_TWINS[self.name]), self.name, None)
        if twin is not None and twin not in self.ours.__bases__:
            self.ours.__bases__ += (twin,)


# jsonargparse, before it. What its messages say is read in runs/messages.py, and tested with a
# mistake each in tests/runs/mistakes.yaml.


def set_option_type(parser: "ArgumentParser", option: str, kind: Any) -> None:
    """Gives an option of a jsonargparse parser another type than its class's signature says.

    jsonargparse tries the types of a union in their order, and Lightning's ``int | float`` comes
    to it as ``float | int``, so that 1, which means one batch, would become 1.0, all of them.
    """
    action: Any = parser._option_string_actions[option]
    action._typehint = kind


def add_option_type(parser: "ArgumentParser", option: str, kind: Any) -> None:
    """Has an option of a jsonargparse parser take values of one more type."""
    action: Any = parser._option_string_actions[option]
    action._typehint |= kind


def class_parameters(owner: type) -> dict[str, Parameter]:
    """The parameters of a class, those too that it passes on as ``**kwargs``.

    jsonargparse resolves them in the same way for its parsers, but gives only their names. A
    default that it cannot resolve is ``None`` here.
    """
    from jsonargparse._parameter_resolvers import UnknownDefault, get_signature_parameters

    return {
        one.name: Parameter(
            one.name,
            Parameter.KEYWORD_ONLY,
            default=None if isinstance(one.default, UnknownDefault) else one.default,
            annotation=one.annotation,
        )
        for one in get_signature_parameters(owner)
    }
