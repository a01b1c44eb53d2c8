"""Processes that end when the one that started them ends, however that happens."""

import os
import subprocess
import threading
from multiprocessing import parent_process
from typing import Any


def start_child(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
    """Starts a command that calls :func:`end_with_parent`; ``settings`` are those of ``Popen``.

    Its standard input is a pipe that nothing is written to and that the system closes when this
    process is gone. Whoever waits for it closes its ``stdin`` afterwards.
    """
    return subprocess.Popen(command, stdin=subprocess.PIPE, **settings)


def end_with_parent() -> None:
    """Ends this process, with exit code 1, when the one that started it is gone.

    That one has started it by :func:`start_child` or by :mod:`multiprocessing`. Processes that are
    started by a child of :func:`start_child` and keep its standard input may call this too.
    """

    def wait() -> None:
        if parent := parent_process():
            parent.join()
        # Not sys.stdin, whose lock a waiting thread would hold when the interpreter ends.
        while parent is None and os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
