"""The network that a callback acts on, and the modules in it that a setting names."""

from collections.abc import Sequence

import pytorch_lightning as pl
from torch import nn

from critical_periods.core.errors import UserError, near
from critical_periods.core.project import Project


def network_of(pl_module: pl.LightningModule, project: Project | None = None) -> nn.Module:
    """What ``project`` names, the module's attribute ``network``, or else the module itself."""
    if project is not None and project.network is not None:
        try:
            return pl_module.get_submodule(project.network)
        except AttributeError:
            known = [name for name, _ in pl_module.named_modules() if name]
            raise UserError(
                f"network={project.network!r} of Project is no module of "
                f"{type(pl_module).__name__}; {near(project.network, known)}"
            ) from None
    network = getattr(pl_module, "network", None)
    # A compiled network is measured by its original code.
    network = getattr(network, "_orig_mod", network)
    return network if isinstance(network, nn.Module) else pl_module


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
    found = dict(network.named_modules())
    return found | {name.replace("_orig_mod.", ""): part for name, part in found.items()}
