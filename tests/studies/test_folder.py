"""The folder of a segment where it cannot be locked."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from critical_periods.core.errors import UserError
from critical_periods.studies.folder import SegmentFolder


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOLCK, errno.EROFS])
def test_a_lock_that_cannot_be_taken_is_a_sentence(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another user's folder, or a file system without locks."""
    segment = SegmentFolder(tmp_path)
    with segment.held():
        assert segment.is_running()
    assert not segment.is_running()

    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    words = f"lock cannot be locked, .*{os.strerror(number)}; choose another --output"
    with pytest.raises(UserError, match=words), segment.held():
        pass
    assert not segment.is_running()
    segment.progress.write_text("3")
    assert segment.is_running()
