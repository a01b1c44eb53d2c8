"""The network that a callback acts on, and the modules in it that a setting names."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from torch import nn

from critical_periods.core.errors import UserError, near


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The module's attribute ``network``, or, in a project without one, the module itself."""
    network = getattr(pl_module, "network", None)
    return network if isinstance(network, nn.Module) else pl_module


def name_list(setting: str, owner: str, names: Sequence[str]) -> list[str]:
    """The names that a setting holds, as a list.

    Args:
        setting: what it is called, such as ``layers``.
        owner: the class that it belongs to.
        names: of modules.

    Raises:
        UserError: there is none, or a string stands where a list should.

    Example:
        >>> name_list("layers", "SourceVarianceMonitor", ("trunk.stage4", "head"))
        ['trunk.stage4', 'head']
    """
    if not names or isinstance(names, str):
        raise UserError(f"{setting}={names!r} of {owner} must be a list of module names.")
    return list(names)


def modules_named(
    setting: str, owner: str, names: Sequence[str], network: nn.Module
) -> list[nn.Module]:
    """The modules that a setting names, by the names that ``network.named_modules`` has for them.

    Args:
        setting: what it is called, such as ``layers``.
        owner: the class that it belongs to.
        names: of modules.
        network: whose modules they are.

    Raises:
        UserError: the network has no module of such a name.

    Example:
        >>> modules_named("layers", "SourceVarianceMonitor", ["1"], nn.Sequential(nn.ReLU()))
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: layers of SourceVarianceMonitor names '1', which \
the network does not have; choose one of '0'.
    """
    known = dict(network.named_modules())
    for name in names:
        if name not in known:
            raise UserError(
                f"{setting} of {owner} names {name!r}, which the network does not have; "
                f"{near(name, filter(None, known))}"
            )
    return [known[name] for name in names]
