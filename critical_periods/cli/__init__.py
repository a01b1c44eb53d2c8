"""The command line, and every mistake of its user told in one sentence."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.cli.main import main as main

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
