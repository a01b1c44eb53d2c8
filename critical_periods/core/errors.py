"""The one exception that means "the user can mend this"."""

from collections.abc import Iterable
from difflib import get_close_matches

ERROR_PREFIX = "critical-periods: error: "
"""What the command line begins such a message with."""


class UserError(ValueError):
    """Something in a file or an argument that its author can mend.

    The message is one sentence that names the file or the field, the offending value and the way
    out. The command line prints it without a traceback and exits with code 2; in Python it is an
    ordinary ``ValueError``.

    Example:
        >>> raise UserError("removal 3 lies before onset 5; choose at least 5.")
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: removal 3 lies before onset 5; choose at least 5.
    """


def near(word: str, words: Iterable[str]) -> str:
    """The valid ``words`` nearest to a misspelt one, as the end of an error message.

    Returns:
        ``"did you mean 'a' or 'b'?"``, or, when nothing is near, ``"choose one of 'a', 'b', …"``
        with at most eight choices.

    Example:
        >>> near("stage5", ["stage3", "stage4", "head"])
        "did you mean 'stage4' or 'stage3'?"
        >>> near("x", ["left", "right"])
        "choose one of 'left', 'right'."
    """
    known = sorted(set(words))
    # Above the usual 0.6, at which "windws" is near "ends".
    close = get_close_matches(word, known, n=3, cutoff=0.62)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = ", ".join(map(repr, known[:8]))
    return f"choose one of {shown}{', …' if len(known) > 8 else ''}."


def reason(error: Exception) -> str:
    r"""What an error says, as part of a sentence: its first line, or its type if it says nothing.

    Example:
        >>> reason(AssertionError("no.\nmore")), reason(AssertionError())
        ('no', 'AssertionError')
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
