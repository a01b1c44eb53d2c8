"""Locks between processes, also where a file system has none."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from pathlib import Path

from filelock import FileLock, Timeout

# What file systems of clusters say that have no locks, or have them switched off.
_NO_LOCKS = {EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP}
# After so many seconds it is said what is waited for.
_PATIENCE = 3.0

_log = logging.getLogger(__name__)


def is_held(file: Path) -> bool:
    """Whether a process holds a lock, which may be this one.

    Raises:
        OSError: that cannot be found out.
        NotImplementedError: nor where the file system has no locks.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, locked(Path(folder) / "lock"):
        ...     is_held(Path(folder) / "lock"), is_held(Path(folder) / "other")
        (True, False)
    """
    if not file.exists():
        return False
    try:
        with FileLock(file).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def locked(file: Path, waiting: str | None = None) -> Iterator[None]:
    """Holds a lock until the block ends; the system frees it where the process is killed.

    Where the file system has no locks, the block runs without, and a warning says so: what it
    writes must be whole whoever else writes it. The file may stay behind.

    Args:
        file: of the lock; its folder must exist.
        waiting: what is logged where another process holds the lock for long; by default that is
            an error at once.

    Raises:
        Timeout: another process holds it.
        OSError: the file cannot be opened.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, locked(Path(folder) / "lock"):
        ...     print("no other process is here")
        no other process is here
    """
    lock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=0 if waiting is None else _PATIENCE)
        except Timeout:
            if waiting is None:
                raise
            _log.warning("%s", waiting)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        # NotImplementedError is what filelock once made of ENOSYS.
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _log.warning("The file system of %s has no locks (%s), so none is held.", file, error)
    try:
        yield
    finally:
        lock.release()
