"""The folder of a segment: its lock, what is left in it, and whether it is what was written."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from critical_periods.core.errors import UserError
from critical_periods.studies import folder
from critical_periods.studies.folder import SegmentFolder, finalize_checkpoint


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


@pytest.mark.parametrize("done", [False, True])
def test_what_a_killed_segment_left_is_removed_and_nothing_that_it_needs(tmp_path, done):
    """What an unfinished one goes on from stays."""
    segment = SegmentFolder(tmp_path / "0123")
    segment.path.mkdir()
    kept = ["halfway.ckpt", "halfway.ckpt.sha256"]
    if done:
        kept = ["done.json", "metrics.csv", "checkpoint.ckpt"]
    left = {"progress", "metrics.csv.9.part", "halfway.ckpt", "halfway.ckpt.sha256"} - {*kept}
    for name in (*kept, *left):
        (segment.path / name).touch()
    (segment.path / "halfway.ckpt.part").mkdir()  # of shards

    segment.remove_leftovers()

    assert {path.name for path in segment.path.iterdir()} == {*kept}


def test_only_what_has_changed_is_read_again(tmp_path, monkeypatch):
    """By size and time; a copy of other times is read once, damage of the same size is seen."""
    segment = SegmentFolder(tmp_path / "0123")
    segment.path.mkdir()
    (segment.path / "part").write_bytes(b"weights")
    finalize_checkpoint(segment.path / "part", segment.checkpoint)
    segment.metrics.write_text("epoch,val/loss\n0,0.5\n")
    segment.mark_done({"seed": 1})
    read, checked = [], folder.is_intact
    monkeypatch.setattr(folder, "is_intact", lambda path: read.append(path) or checked(path))

    assert segment.is_intact(1) and not read
    os.utime(segment.checkpoint, (0, 0))
    assert segment.is_intact(1) and segment.is_intact(1) and read == [segment.checkpoint]
    assert json.loads(segment.done.read_text())["seed"] == 1
    segment.done.write_text("[]")
    assert segment.is_intact(1)
    segment.checkpoint.write_bytes(b"Weights")
    assert not segment.is_intact(1) and not segment.is_intact(1)
