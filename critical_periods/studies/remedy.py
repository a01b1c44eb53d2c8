"""Remedies of a study: callbacks whose epochs are counted from the removal of the deficit."""

import copy
from collections.abc import Iterable, Sequence

from critical_periods.core.errors import UserError
from critical_periods.studies.configs import Config
from critical_periods.studies.roles import class_at, said_by

# Settings of callbacks that are epochs of a run.
_EPOCHS = ("onset", "removal", "epoch")


def begun(callbacks: Iterable[Config], start: int) -> list[Config]:
    """The callbacks of a remedy that begins in an epoch, with the epochs of the run.

    What says when a callback begins, and is left out, is the removal itself.

    Example:
        >>> begun([{"class_path": "Patching", "init_args": {"removal": 5}}], start=20)
        [{'class_path': 'Patching', 'init_args': {'removal': 25, 'onset': 20}}]
    """
    found = []
    for callback in copy.deepcopy(list(callbacks)):
        settings = dict(callback.get("init_args") or {})
        moved = {n: settings[n] + start for n in _EPOCHS if type(settings.get(n)) is int}
        first = said_by(callback, "changes_nothing_before")
        settings |= {first: start, **moved} if first is not None else moved
        found.append({**callback, "init_args": settings})
    return found


def validate_remedy(name: str, callbacks: Sequence[Config], epochs_after: int) -> None:
    """Refuses a remedy that would change what comes before the removal, or lies beyond the run.

    Raises:
        UserError: a callback does not say from when on it acts, or an epoch is beyond the last.
    """
    for callback in callbacks:
        path, settings = callback["class_path"], callback.get("init_args") or {}
        if class_at(path) is None:
            continue  # Building the run says what is wrong with it.
        if said_by(callback, "changes_nothing_before") is None:
            raise UserError(
                f"recovery.{name}: {path} does not say (changes_nothing_before) that it changes "
                "nothing until an epoch, so what comes before the removal could not be shared; "
                "choose a callback that does, such as Patching or LearningRateRestart."
            )
        for setting in _EPOCHS:
            epoch = settings.get(setting)
            last = epochs_after - (setting != "removal")
            if type(epoch) is int and epoch > last:
                raise UserError(
                    f"recovery.{name}: {setting}={epoch} of {path}, which is counted from the "
                    f"removal, lies beyond the run: windows.epochs_after={epochs_after}."
                )
