"""What legends and trees call the runs of a variation."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

# These columns of tables say what they are by their values alone.
_NAMES = ("variant", "remedy", "stage")


def label_of(settings: Mapping[str, Any]) -> str:
    """Varied settings as a legend or a line of the tree says them.

    Example:
        >>> label_of({"variant": "blur", "model.init_args.network.init_args.width": 8})
        'blur, width = 8'
    """
    parts = []
    for name, setting in settings.items():
        # A table has nan where a plan has None.
        value = "none" if setting is None or setting != setting else str(setting)
        parts.append(value if name in _NAMES else f"{name.split('.')[-1]} = {value}")
    return ", ".join(parts)


def settings_of(columns: Iterable[str]) -> list[str]:
    """The columns before ``onset``: ``variant``, every varied field and ``stage``.

    Example:
        >>> settings_of(["variant", "onset", "removal", "epochs"])
        ['variant']
    """
    return list(takewhile(lambda name: name != "onset", columns))
