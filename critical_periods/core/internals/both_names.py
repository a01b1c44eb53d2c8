"""Lightning's two names.

``pytorch_lightning`` and ``lightning.pytorch`` are two packages of the same code, and a Trainer or
LightningCLI of one takes the other's classes for strangers.
"""

import sys
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

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
