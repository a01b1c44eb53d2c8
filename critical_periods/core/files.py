"""Files that are never half written: each is written beside its place and then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of ``path`` when the block ends.

    Whoever reads ``path`` meanwhile sees the old file or the new one, never a part of either. Where
    the block fails, the old file stays and the new one is removed. Several processes may do so at
    once; the last one to end is the one whose file stays. The folder must exist.

    Yields:
        ``path`` followed by the number of this process and ``.part``. As it has another ending, a
        writer that goes by the ending must be told the format.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "numbers.txt"
        ...     with replacing(file) as part:
        ...         _ = part.write_text("1 2 3")
        ...     file.read_text(), part.exists()
        ('1 2 3', False)
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # A full disk is noticed by a descriptor, which has no name.
        names = (None, str(part))
        if isinstance(error, OSError) and error.errno in _FULL and error.filename in names:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def no_space(error: BaseException | None) -> str | None:
    """The sentence for a disk that is full, or a quota that is used up; ``None`` for other errors.

    Example:
        >>> no_space(OSError(errno.ENOSPC, "No space left on device", "curve.csv"))
        'there is no space left to write curve.csv; free some, and run the same again.'
        >>> no_space(OSError(errno.ENOENT, "No such file or directory")) is None
        True
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            # Of a file that was being copied there, the second name.
            name = error.filename2 or error.filename
            what = f"to write {name}" if name else "on the disk"
            return f"there is no space left {what}; free some, and run the same again."
        error = error.__cause__ or error.__context__
    return None
