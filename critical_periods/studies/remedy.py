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


def validate_remedy(callbacks: Sequence[Config], epochs_after: int) -> None:
    """Refuses a remedy that would change what comes before the removal, or lies beyond the run.

    Raises:
        UserError: a callback does not say from when on it acts, or an epoch is before the removal
            of the deficit or beyond the last.
    """
    for callback in callbacks:
        path, settings = callback["class_path"], callback.get("init_args") or {}
        if class_at(path) is None:
            continue  # Building the run says what is wrong with it.
        if said_by(callback, "changes_nothing_before") is None:
            raise UserError(
                f"{path} does not say (changes_nothing_before) that it changes nothing until an "
                "epoch, so what comes before the removal could not be shared; choose a callback "
                "that does, such as Patching or LearningRateRestart."
            )
        given = {name: value for name, value in settings.items() if type(value) is int}
        begin = given.get("onset", given.get("epoch", 0))
        limits = {
            "onset": (0, epochs_after - 1),
            "epoch": (0, epochs_after - 1),
            "removal": (begin, epochs_after),
            "every_n_epochs": (1, epochs_after - begin),
        }
        for name, (least, last) in limits.items():
            if name in given and not least <= given[name] <= last:
                raise UserError(
                    f"{name}={given[name]} of {path} must lie from {least} to {last}: a remedy's "
                    "epochs are counted from the removal of the deficit, and "
                    f"windows.epochs_after={epochs_after} of them follow."
                )
