"""Locks between processes, on file systems that have them and on those that have none."""

import errno
import fcntl
import logging
import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from filelock import Timeout

from critical_periods.core import locks
from critical_periods.core.locks import locked


def in_a_thread(work: Any) -> Any:
    """What a piece of work returns or raises in another thread, for which a lock is another's."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join(20)
    return found[0]


def hold(file: Path, waiting: str | None = None) -> str:
    with locked(file, waiting):
        return "held"


def test_one_holds_it_and_others_wait_or_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(locks, "_PATIENCE", 0.01)
    file = tmp_path / "lock"
    with locked(file):
        assert isinstance(in_a_thread(lambda: hold(file)), Timeout)
        waiting = Thread(target=hold, args=(file, "Waiting for the other."))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive() and "Waiting for the other." in caplog.text
    assert in_a_thread(lambda: hold(file)) == "held"
    file.touch()  # which some versions of filelock take away
    with pytest.raises(FileExistsError):
        hold(file / "lock")  # of a folder that is none


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_worked_on_without(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def none(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    caplog.set_level(logging.WARNING)
    assert hold(tmp_path / "lock") == hold(tmp_path / "lock", "waiting") == "held"
