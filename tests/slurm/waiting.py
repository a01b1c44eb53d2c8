"""Calling a program of Slurm, and waiting for what it does."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def call(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(what: Callable[[], Any], seconds: float = 900) -> Any:
    """Waits until something is so, and returns it; an AssertionError if it never is.

    So long, because a machine that is busy takes minutes for what takes another one seconds.
    """
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def end(number: int) -> None:
    """Ends a process, and waits until it has."""
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{number}").exists())


def restarts(job: str) -> int:
    """How often a job has gone back to the queue."""
    found = re.search(r"Restarts=(\d+)", call("scontrol", "show", "job", job))
    assert found
    return int(found[1])


def is_requeued(job: str) -> None:
    """Waits until a job goes back to the queue."""
    wait_for(lambda: restarts(job))
