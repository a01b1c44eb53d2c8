"""Names of segments: hashes of all that determines their bits, and of nothing else."""

import copy
import hashlib
import json
from typing import Any, NamedTuple

import critical_periods
from critical_periods.studies.configs import Config
from critical_periods.studies.remedy import begun
from critical_periods.studies.roles import said_by, segment_callbacks

# How a run is observed, and where, changes none of its bits.
_OBSERVED = (
    "default_root_dir", "enable_autolog_hparams", "enable_checkpointing", "enable_model_summary",
    "enable_progress_bar", "log_every_n_steps", "logger", "model_registry", "num_sanity_val_steps",
    "profiler",
)  # fmt: skip
# The machine that trains it may change them, by rounding.
_MACHINE = ("accelerator", "devices", "num_nodes", "strategy")
# The data itself is in the name by its fingerprint; where it lies is not.
DATA_IGNORED = ("device_resident", "download", "index_dir", "root")
_NOT_TRAINED = (
    "num_threads.", *(f"trainer.{name}." for name in (*_OBSERVED, *_MACHINE)),
    *(f"data.init_args.{name}." for name in (*DATA_IGNORED, "num_workers")),
)  # fmt: skip


def is_of_training(setting: str) -> bool:
    """Whether a setting says what is trained, rather than on which machine or how it is observed.

    Example:
        >>> is_of_training("trainer.gradient_clip_val"), is_of_training("trainer.devices")
        (True, False)
    """
    return not f"{setting.removeprefix('finetuning.')}.".startswith(_NOT_TRAINED)


class Resolved(NamedTuple):
    """A config with every default filled in.

    Attributes:
        config: of a run.
        window: the callback that its deficit comes and goes with; empty where it has none.
        data: the hash of the data.
    """

    config: Config
    window: Config
    data: str

    def with_remedy(self, number: int, start: int) -> "Resolved":
        """With the last callbacks, so many, begun in an epoch."""
        trainer = self.config["trainer"]
        callbacks = trainer["callbacks"]
        callbacks = callbacks[:-number] + begun(callbacks[-number:], start)
        return self._replace(config={**self.config, "trainer": {**trainer, "callbacks": callbacks}})


class SegmentNames:
    """Names of the segments of one variation; what seeds share is worked out once.

    Args:
        resolved: its run.
    """

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self._hashes: dict[Any, tuple[Any, str]] = {}

    def name(
        self,
        seed: int,
        window: tuple[int, int],
        stop: int,
        cooldown: int = 0,
        weights: str | None = None,
    ) -> str:
        """The name of the segment that the run has trained when it gets to an epoch.

        Args:
            seed: of the run.
            window: onset and removal of the deficit before ``stop``; equal: none.
            stop: the epoch.
            cooldown: over how many epochs until then the learning rate has gone to zero.
            weights: the name of the segment whose weights it starts from, if any.

        Returns:
            16 hexadecimal digits, the same whatever comes after the epoch: a hash of all
            determinants as JSON, in the order of their names.
        """
        key = window, stop, cooldown
        if key not in self._hashes:
            before, after = self._determinants(*key)
            self._hashes[key] = hashlib.sha256(f"{{{_fields(before)}".encode()), _fields(after)
        started, rest = self._hashes[key]
        last = "" if weights is None else f", {_fields({'weights': weights})}"
        full = started.copy()
        full.update(f", {_fields({'seed': seed})}, {rest}{last}}}".encode())
        return str(full.hexdigest()[:16])

    def _determinants(
        self, window: tuple[int, int], stop: int, cooldown: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What determines the bits, but for the seed: names that come before and after it."""
        resolved, callback = self.resolved, self.resolved.window
        # A window that has not opened yet is like any other that changes nothing until then.
        is_any = not callback or said_by(callback, "changes_nothing_while_closed")
        is_none = window[0] == window[1] and is_any
        before: dict[str, Any] = {
            "config": _until(resolved.config, window, stop),
            "data": resolved.data,
            "schedule": None if is_none else {"window": window, "callback": callback},
        }
        if cooldown:
            before["cooldown"] = cooldown
        # Version 0.1 left out the step of such a scheduler at the end of each segment.
        if "ReduceLROnPlateau" in json.dumps(resolved.config.get("model")):
            before["lr_scheduler"] = "stepped at the ends of segments"
        return before, {"stop": stop, "version": critical_periods.__version__}


def _fields(determinants: dict[str, Any]) -> str:
    return json.dumps(determinants, sort_keys=True)[1:-1]


def _until(config: Config, window: tuple[int, int], stop: int) -> Config:
    """The settings of a run that determine its bits until an epoch."""
    config = copy.deepcopy(config)
    config.pop("seed_everything", None)
    trainer, data = config["trainer"], config["data"].get("init_args", {})
    # The schedule has max_epochs.
    for settings, ignored in ((trainer, (*_OBSERVED, "max_epochs")), (data, DATA_IGNORED)):
        for setting in ignored:
            settings.pop(setting, None)
    callbacks = segment_callbacks(trainer["callbacks"])
    removals = [window[1]] if window[0] < window[1] else []
    # A callback that waits for a removal may wait for that of any other window, too.
    removals += [0 for one in callbacks if (one.get("init_args") or {}).get("removal") is not None]

    def is_to_come(callback: Config) -> bool:
        setting = said_by(callback, "changes_nothing_before")
        epoch = (callback.get("init_args") or {}).get(setting)
        epochs = removals if epoch is None else [epoch]
        return setting is not None and all(first >= stop for first in epochs)

    trainer["callbacks"] = [one for one in callbacks if not is_to_come(one)]
    return config
