"""Internals of Lightning, torch, jsonargparse and W&B that this package leans on, all in one place.

None of these is a promise of its package's, so each has a function here that says what it is for,
a test in ``tests/core/test_internals.py`` that notices when a release changes it, and an upper
bound on the package's version in ``pyproject.toml``.
"""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .both_names import under_both_names as under_both_names
    from .loaders import HasWorkers as HasWorkers
    from .loaders import reload_every_epoch as reload_every_epoch
    from .loaders import separate as separate
    from .loaders import set_up_validation as set_up_validation
    from .loaders import transferred as transferred
    from .modules import around_calls as around_calls
    from .modules import compiles_functions as compiles_functions
    from .modules import is_compiled as is_compiled
    from .modules import is_redirected as is_redirected
    from .modules import plain_for_func as plain_for_func
    from .options import add_option_type as add_option_type
    from .options import class_parameters as class_parameters
    from .options import set_option_type as set_option_type
    from .packages import list_packages_once as list_packages_once
    from .resuming import add_epoch_sums as add_epoch_sums
    from .resuming import batches_before_resuming as batches_before_resuming
    from .resuming import epoch_sums as epoch_sums
    from .resuming import finish_resumed_epoch as finish_resumed_epoch
    from .resuming import follow_measures as follow_measures
    from .resuming import followed_by_schedulers as followed_by_schedulers
    from .resuming import lacks_measures as lacks_measures
    from .resuming import measures_followed as measures_followed
    from .resuming import resume_in_place as resume_in_place
    from .trainer import connect as connect
    from .trainer import default_dtype as default_dtype
    from .trainer import in_precision as in_precision
    from .trainer import milestones as milestones
    from .trainer import rate_attributes as rate_attributes
    from .trainer import scale_rates as scale_rates
    from .trainer import stops_before_monitors as stops_before_monitors
    from .trainer import synchronises_batch_norm as synchronises_batch_norm

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
