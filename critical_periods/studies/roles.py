"""What a callback is to a study, as its class says."""

from collections.abc import Iterable
from itertools import product
from pkgutil import resolve_name
from typing import Any

import pytorch_lightning as pl

import critical_periods.callbacks as callbacks
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.callbacks.windows.window import Window
from critical_periods.core.errors import UserError
from critical_periods.studies.configs import Config

# Callbacks of Lightning that change no bit of what is trained; subclasses of them may.
_OBSERVERS = (
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary",
    "OnExceptionCheckpoint", "RichModelSummary", "RichProgressBar", "ThroughputMonitor",
    "TQDMProgressBar",
)  # fmt: skip
# Callbacks of Lightning, and what is derived from them, that a run cut into segments would have
# act otherwise than one in a piece: what they do there, and the way out.
_ENDS = "may end a run before its last epoch, which a study's runs must get to"
_ACROSS_SEGMENTS = {
    "StochasticWeightAveraging": (
        "averages over the last epochs of each segment, and trains an epoch more",
        "use EMAWeightAveraging or WeightAveraging, whose averages go through a run",
    ),
    "BatchSizeFinder": (
        "chooses a batch size in each segment anew",
        "set the one it finds in `fit` as data.init_args.batch_size",
    ),
    "LearningRateFinder": (
        "chooses a learning rate in each segment anew",
        "set the one it finds in `fit` as model.init_args.optimizer.init_args.lr",
    ),
    "ModelPruning": (
        "keeps no masks in checkpoints, so that a segment trains what its parent has pruned",
        "leave it out",
    ),
    "BaseFinetuning": (
        "gives the optimizer other groups of parameters on the way, which segments that share a "
        "beginning cannot have",
        "use FreezeWindow",
    ),
    "EarlyStopping": (_ENDS, "leave it out"),
    "SpikeDetection": (_ENDS, "leave it out"),
    "Timer": (_ENDS, "leave it out"),
}
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


def validate_across_segments(callbacks: Iterable[object]) -> None:
    """Refuses callbacks whose schedule or state does not go through the segments of a run.

    Raises:
        UserError: a callback, of either package of Lightning or derived from one of theirs, would
            change what is trained, or end it.

    Example:
        >>> validate_across_segments([pl.callbacks.EMAWeightAveraging()])
        >>> validate_across_segments([pl.callbacks.Timer(duration="00:01:00:00")])
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: Timer of trainer.callbacks may end a run before \
its last epoch, which a study's runs must get to; leave it out.
    """
    for callback, (name, (does, way_out)) in product(callbacks, _ACROSS_SEGMENTS.items()):
        if derives(type(callback), name):
            raise UserError(f"{type(callback).__name__} of trainer.callbacks {does}; {way_out}.")


def derives(found: type | None, name: str) -> bool:
    """Whether a class is Lightning's of this name, in either package, or derived from it.

    Example:
        >>> derives(pl.callbacks.OnExceptionCheckpoint, "Checkpoint"), derives(None, "Checkpoint")
        (True, False)
    """
    kinds = () if found is None else found.__mro__
    return any(one.__name__ == name and one.__module__.startswith(_LIGHTNING) for one in kinds)


def left_out(trainer: Config) -> list[str]:
    """What of a run's trainer segments go without: callbacks that only observe, and loggers.

    Example:
        >>> left_out({"callbacks": [{"class_path": "TQDMProgressBar"}], "logger": "CSVLogger"})
        ['TQDMProgressBar', 'trainer.logger']
    """
    names = [one["class_path"] for one in trainer["callbacks"] if is_observer(one)]
    return names + ["trainer.logger"] * bool(trainer.get("logger"))


def segment_callbacks(found: Iterable[Config]) -> list[Config]:
    """The callbacks of a run that its segments have, too.

    Not those that only observe, nor deficit windows: what the study schedules replaces these.
    """
    kept = (one for one in found if class_at(one["class_path"]) is not DeficitWindow)
    return [one for one in kept if not is_observer(one)]
