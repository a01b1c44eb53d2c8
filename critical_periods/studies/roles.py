"""What a callback is to a study, as its class says."""

from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Any

import pytorch_lightning as pl

import critical_periods.callbacks as callbacks
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.callbacks.windows.window import Window
from critical_periods.studies.configs import Config

# Callbacks of Lightning that change no bit of what is trained; subclasses of them may.
_OBSERVERS = (
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary",
    "RichModelSummary", "RichProgressBar", "TQDMProgressBar",
)  # fmt: skip
_LIGHTNING = ("pytorch_lightning.callbacks", "lightning.pytorch.callbacks")


def class_at(path: str) -> type | None:
    """The class of a callback's ``class_path``; ``None`` where there is none.

    As on the command line, a name without dots is of Lightning or of this package.

    Example:
        >>> class_at("LearningRateMonitor").__module__, class_at("no_package.Monitor")
        ('pytorch_lightning.callbacks.lr_monitor', None)
    """
    try:
        bare = getattr(pl.callbacks, path, None) or getattr(callbacks, path, None)
        found = resolve_name(path) if "." in path else bare
    except Exception:  # Of a third party's module anything may be wrong; building the run says so.
        return None
    return found if isinstance(found, type) else None


def said_by(callback: Config, attribute: str) -> Any:
    """What the class of a callback's config says of itself; ``None`` where it does not.

    Attributes are those of :class:`~critical_periods.callbacks.windows.window.Window` and
    :class:`~critical_periods.callbacks.learning_rate_restart.LearningRateRestart`.
    """
    return getattr(class_at(callback["class_path"]), attribute, None)


def is_window(callback: Config) -> bool:
    """Whether a callback is one that does something from one epoch, or step, to another."""
    return issubclass(class_at(callback["class_path"]) or object, Window)


def is_observer(callback: Config) -> bool:
    """Whether a callback is one of Lightning, of either package, that only observes a run."""
    found = class_at(callback["class_path"]) or object
    return found.__name__ in _OBSERVERS and found.__module__.startswith(_LIGHTNING)


def segment_callbacks(found: Iterable[Config]) -> list[Config]:
    """The callbacks of a run that its segments have, too.

    Not those that only observe, nor deficit windows: what the study schedules replaces these.
    """
    kept = (one for one in found if class_at(one["class_path"]) is not DeficitWindow)
    return [one for one in kept if not is_observer(one)]
