"""Processes that end when the one that started them ends, and how processes end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType
from typing import Any

# Says to a child which pipe it is that closes when its parent is gone.
_PIPE = "CRITICAL_PERIODS_PARENT"


INTERRUPTED = 128 + signal.SIGINT
"""Exit code of what Ctrl-C has ended, as shells have it."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of what was told to end by a signal, as schedulers and ``kill`` do it."""

STOPPED = 75
"""Exit code of a segment that was told to end and has saved what it has (EX_TEMPFAIL)."""


class Terminated(BaseException):
    """Raised where a process is told to end (SIGTERM)."""


def exit_code(error: BaseException | None) -> int:
    """The exit code of a process that an error ends; 0 without one.

    Lightning ends a run with the code 1 after Ctrl-C and with none after SIGTERM.

    Example:
        >>> exit_code(None), exit_code(ValueError()), exit_code(KeyboardInterrupt())
        (0, 1, 130)
        >>> exit_code(Terminated()), exit_code(SystemExit(3)), exit_code(SystemExit())
        (143, 3, 0)
    """
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Terminated) or type(error).__name__ == "SIGTERMException":
        return TERMINATED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1


def start_child(
    command: list[str], env: dict[str, str] | None = None, **settings: Any
) -> subprocess.Popen[bytes]:
    """Starts a command that calls :func:`end_with_parent`; ``settings`` are those of ``Popen``.

    Its standard input is a pipe that nothing is written to and that the system closes when this
    process is gone. Whoever waits for it closes its ``stdin`` afterwards. Ctrl-C in a terminal does
    not reach it: two signals at once would leave it no time to tidy up.
    """
    end, own = os.pipe()
    env = {**(os.environ if env is None else env), _PIPE: _identity(end)}
    try:
        child = subprocess.Popen(command, stdin=end, env=env, start_new_session=True, **settings)
    except BaseException:
        os.close(own)
        raise
    finally:
        os.close(end)
    child.stdin = os.fdopen(own, "wb")
    return child


def end_with_parent() -> None:
    """Ends this process, with exit code 1, when the one that started it is gone.

    That one has started it by :func:`start_child` or by :mod:`multiprocessing`. Processes that are
    started by a child of :func:`start_child` and keep its standard input may call this too. One
    that was started in another way is left to whoever started it, whatever its standard input is.
    """
    parent = parent_process()
    if parent is None and os.environ.get(_PIPE) != _identity(0):
        return

    def wait() -> None:
        if parent is not None:
            parent.join()
        # Not sys.stdin, whose lock a waiting thread would hold when the interpreter ends.
        while parent is None and os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _identity(descriptor: int) -> str:
    """What tells an open file from all others of this machine; '' where it is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


@contextmanager
def raising_terminated() -> Iterator[None]:
    """Has SIGTERM raise :class:`Terminated`, so that this process can tidy up.

    While Lightning trains it does so in its own way, between two batches. Signals are of the main
    thread; in others this does nothing.

    Example:
        >>> with raising_terminated():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        ...
        critical_periods.core.processes.Terminated
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        # Lightning's handler calls this one after itself.
        if signal.getsignal(signal.SIGTERM) is end:
            raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def told_to_end(*signals: int) -> Iterator[Callable[[], bool]]:
    """Notes such signals and goes on; what it yields says whether one has come.

    Example:
        >>> with told_to_end(signal.SIGUSR1) as is_told:
        ...     before = is_told()
        ...     signal.raise_signal(signal.SIGUSR1)
        ...     before, is_told()
        (False, True)
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in signals
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_standard_streams() -> None:
    """Opens those of this process's three standard streams that are closed, on nothing.

    The next file that is opened would take the place of a closed one, and be printed into.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if not _identity(descriptor):
            opened = os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
