"""This package's classes by their short names, as configs call them."""

from __future__ import annotations

from importlib import import_module

# The packages that give classes to configs.
PACKAGES = ("callbacks", "data", "deficits", "models", "tasks")


def load_classes() -> None:
    """Loads all classes of this package: jsonargparse knows a short name once it is loaded.

    Example:
        >>> load_classes()
        >>> from critical_periods.deficits.deficit import Deficit
        >>> "Blur" in {one.__name__ for one in Deficit.__subclasses__()}
        True
    """
    for name in PACKAGES:
        package = import_module(f"critical_periods.{name}")
        for one in package.__all__:
            getattr(package, one)
