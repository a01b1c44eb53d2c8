"""Studies: whole sweeps as trees of segments, trained once each."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .loading import LoadedStudy as LoadedStudy
    from .loading import load_study as load_study
    from .markdown import markdown_table as markdown_table
    from .tables import read_table as read_table

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
