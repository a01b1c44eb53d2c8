"""The network that a callback acts on, and the modules in it that a setting names."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from critical_periods.core.errors import UserError, near, reason
from critical_periods.core.internals import compiles_functions
from critical_periods.core.project import Project
from critical_periods.core.trees import tensors_in
from critical_periods.models.heads import answering_together
from critical_periods.tasks.task import Task

# How far from a network a head may be, in steps of the graph of gradients.
_STEPS = 20


def network_of(pl_module: pl.LightningModule, project: Project | None = None) -> nn.Module:
    """What ``project`` names, the module's attribute ``network``, or else the module itself."""
    if project is not None and project.network is not None:
        known = module_names(pl_module)
        if project.network not in known:
            raise UserError(
                f"network={project.network!r} of Project is no module of "
                f"{type(pl_module).__name__}; {near(project.network, filter(None, known))}"
            )
        return _original(known[project.network])
    network = getattr(pl_module, "network", None)
    return _original(network) if isinstance(network, nn.Module) else pl_module


def _original(network: nn.Module) -> nn.Module:
    """A compiled network's own code, which is measured."""
    return getattr(network, "_orig_mod", network)


def computes_more(
    pl_module: pl.LightningModule, project: Project | None, inputs: Sequence[Tensor]
) -> bool:
    """Whether a module's ``forward`` does more than its ``network``, such as normalising first.

    What a forward makes of logits for predicting, probabilities or classes, does not count. Both
    are called, in the modes that they are in.

    Raises:
        UserError: only the network can be called with one tensor a view.
    """
    network = network_of(pl_module, project)
    named = project is not None and project.network is not None
    if named or network is pl_module or isinstance(pl_module, Task) or not _has_forward(pl_module):
        return False
    own, error = _tried(pl_module, project, inputs)
    inner, inner_error = _tried(network, project, inputs)
    if error is None or inner_error is not None:
        return inner_error is not None or not _agree(own, inner)
    raise UserError(
        f"{type(pl_module).__name__} has an attribute network and a forward of its own, which "
        f"cannot be called with one tensor a view ({reason(error)}), so it is open which of them "
        "is to be measured; say it, such as Project(network='network')."
    )


def _has_forward(module: nn.Module) -> bool:
    """Whether a module has a forward of its own; by name, as Lightning has two base classes."""
    name = getattr(type(module).forward, "__qualname__", "")
    return name not in ("LightningModule.forward", nn.Module.forward.__qualname__)


def _tried(
    network: nn.Module, project: Project | None, inputs: Sequence[Tensor]
) -> tuple[Any, Exception | None]:
    try:
        # Both draw the same, should they draw at all.
        with isolate_rng(), answering(network, project):
            return network(*inputs), None
    except Exception as error:  # of a third party's network
        return None, error


def _agree(own: Any, inner: Any) -> bool:
    """Whether an output has a network's among its tensors, or what a classifier predicts by it."""
    ours, theirs = ([one for one in tensors_in(tree) if one.ndim] for tree in (own, inner))
    return any(_predicts(one, logits) for one in ours for logits in theirs)


def _predicts(own: Tensor, logits: Tensor) -> bool:
    alike = [logits]
    if logits.is_floating_point() and logits.ndim == 2:
        alike += [logits.softmax(1), logits.log_softmax(1), logits.sigmoid(), logits.argmax(1)]
        alike += [logits[:, 0], logits[:, 0].sigmoid()] if logits.shape[1] == 1 else []
    # Other memory formats round differently.
    size = float(own.abs().max()) if own.numel() else 0.0
    return any(
        one.shape == own.shape and torch.allclose(one.to(own.dtype), own, 1e-3, 1e-4 * size)
        for one in alike
    )


@contextmanager
def answering(network: nn.Module, project: Project | None) -> Iterator[None]:
    """A context in which the network returns logits: of its head for both, as the project says."""

    def convert(module: nn.Module, args: Any, output: Any) -> Any:
        return output if project is None else project.logits_of(output)

    with answering_together(network), network.register_forward_hook(convert):
        yield


def heads_on(pl_module: pl.LightningModule, network: nn.Module) -> tuple[list[str], ExitStack]:
    """Modules with weights that take what a network gives, so that this is no output.

    They are not looked for where anything was compiled.

    Returns:
        Their names, as they are called from now on, and what ends that.
    """
    found: list[str] = []
    given: set[Any] = set()
    ends = ExitStack()

    def remember(module: nn.Module, args: Any, output: Any) -> None:
        given.update(one.grad_fn for one in tensors_in(output) if one.grad_fn is not None)

    def look(name: str, module: nn.Module, args: Any) -> None:
        if any(_follows(one, given) for one in tensors_in(args)):
            found.append(name)

    # What is compiled would be compiled anew with the hooks.
    if compiles_functions():
        return found, ends
    ends.enter_context(network.register_forward_hook(remember))
    within = {*network.modules()}
    for name, part in pl_module.named_modules():
        round_it = part in within or network in {*part.modules()}
        if not round_it and next(part.parameters(), None) is not None:
            ends.enter_context(part.register_forward_pre_hook(partial(look, name)))
    return found, ends


def _follows(tensor: Tensor, nodes: set[Any]) -> bool:
    """Whether a tensor was computed from what has these nodes in the graph, by a few steps."""
    ahead, seen = [tensor.grad_fn], set[Any]()
    while nodes and ahead and len(seen) < _STEPS:
        node = ahead.pop(0)
        if node in nodes:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return False


def check_call(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises a UserError where a network's forward does not take one tensor a view."""
    if not _has_forward(network):
        name = next((name for name, _ in network.named_children()), "model")
        raise UserError(
            f"{type(network).__name__} has neither an attribute network nor a forward of its own "
            "that could be measured; name the module that takes one tensor a view, such as "
            f"Project(network={name!r})."
        )
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*inputs)
    except TypeError as error:
        views = f"{len(inputs)} tensor{'s' * (len(inputs) > 1)}"
        raise UserError(
            f"{type(network).__name__}.forward{signature} cannot be called with {views}, one a "
            f"view, by position ({reason(error)}); name a module that can, such as "
            "Project(network='model')."
        ) from None


def name_list(setting: str, owner: object, names: Sequence[str]) -> list[str]:
    """A setting that names modules, as a list; a UserError where it is empty or a string."""
    if not names or isinstance(names, str):
        owned = f"{setting}={names!r} of {type(owner).__name__}"
        raise UserError(f"{owned} must be a list of module names.")
    return list(names)


def modules_named(
    setting: str, owner: object, names: Sequence[str], network: nn.Module
) -> list[nn.Module]:
    """The modules that a setting of a callback names; a UserError where the network lacks one."""
    known = module_names(network)
    for name in names:
        if name not in known:
            raise UserError(
                f"{setting} of {type(owner).__name__} names {name!r}, which the network does not "
                f"have; {near(name, filter(None, known))}"
            )
    return [known[name] for name in names]


def module_names(network: nn.Module) -> dict[str, nn.Module]:
    """Modules in a network by name; those of compiled ones also by the names they had before.

    Example:
        >>> import torch
        >>> network = nn.Sequential(torch.compile(nn.Sequential(nn.Identity())))
        >>> [*module_names(network)]
        ['', '0', '0._orig_mod', '0._orig_mod.0', '0.0']
    """
    found = dict(network.named_modules(remove_duplicate=False))
    return found | {name.replace("_orig_mod.", ""): part for name, part in found.items()}
