"""The folder of a segment: its lock, what is left in it, and whether it is what was written."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from critical_periods.core.errors import UserError
from critical_periods.studies import folder, worker
from critical_periods.studies import folder as files
from critical_periods.studies.folder import SegmentFolder, StudyFolder, finalize_checkpoint
from critical_periods.studies.launchers import local, progress
from critical_periods.studies.launchers.launcher import Request
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan, Run, Segment
from critical_periods.studies.schedule import Schedule


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


def many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StudyFolder, Plan, dict[str, int]]:
    """A study of four runs of twenty segments each, and how often its files are looked at."""
    segments, runs = {}, []
    for seed in range(4):
        for start in range(20):
            name, parent = f"{seed}_{start}", f"{seed}_{start - 1}" if start else None
            segments[name] = Segment(name, parent, start, start + 1, (0, 0), seed, 0)
        runs.append(Run({}, Schedule(0, 0, 20), seed, name))
    study, plan = StudyFolder(folder), Plan("many", [({}, {})], segments, runs, 0.01)
    study.write_plan(plan)
    counts: dict[str, int] = {}

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*arguments)

        monkeypatch.setattr(owner, name, counted)

    for name in ("held", "history", "is_done"):
        count(SegmentFolder, name)
    count(files, "_digest")
    return study, plan, counts


def finish(study: StudyFolder, plan: Plan, name: str) -> None:
    """Writes what a segment leaves behind."""
    one, epochs = study.segment(name), range(plan.segments[name].stop)
    one.path.mkdir(parents=True, exist_ok=True)
    (one.path / "part").write_text(name)
    finalize_checkpoint(one.path / "part", one.checkpoint)
    rows = [f"{epoch},0.5,0.9,1,0.5\n" for epoch in epochs]
    keys = "epoch,val/loss,val/accuracy,fisher/trace,rsv/conv/mean\n"
    one.metrics.write_text("".join([keys, *rows]))
    one.mark_done({})


def test_a_finished_study_goes_on_without_reading_it_again(tmp_path, monkeypatch):
    study, plan, counts = many(tmp_path, monkeypatch)
    for name in plan.segments:
        finish(study, plan, name)
    counts.clear()
    assert study.discard_damaged(plan) == []
    assert local.launch(study, plan, Request(None, {})) == []  # type: ignore[arg-type]
    tables = LoadedStudy(study, plan)
    for table in ("results", "curve", *TABLES):
        tables.rows(table)
    assert tables.curve["seeds"].tolist() == [4] and len(tables.fisher) == 20
    # For what all tables ask, for the results and for the traces.
    assert counts.pop("is_done") and counts == {"history": 3 * 4}

    study.segment("0_7").checkpoint.write_text("0_8")
    (study.segment("1_3").path / "rsv").mkdir()
    (study.segment("1_3").path / "rsv" / "epoch_0001.npz.9.part").touch()
    counts.clear()
    assert study.discard_damaged(plan) == ["0_7"] and counts.pop("_digest") == 1
    monkeypatch.setattr(local, "device_groups", lambda *_: [])
    local.launch(study, plan, Request(None, {}))  # type: ignore[arg-type]
    assert counts["held"] == 1 and not any(study.path.rglob("*.part"))


def test_before_a_segment_only_the_next_ones_are_looked_at(tmp_path, monkeypatch):
    study, plan, counts = many(tmp_path, monkeypatch)
    order: list[str] = []

    def train(study: StudyFolder, plan: Plan, name: str) -> None:
        order.append(name)
        if name == "3_17":
            raise UserError("it diverged")
        finish(study, plan, name)

    monkeypatch.setattr(worker, "_train_here_or_in_a_process", train)
    worker.work(study)
    assert order[:5] == ["0_0", "1_0", "2_0", "3_0", "0_1"] and len(order) == 78
    assert study.failures(plan) == dict.fromkeys(["3_17", "3_18", "3_19"], "3_17")
    # Once for all, then for the four that are next and their parents.
    assert counts["is_done"] < 80 * (1 + 2 * 4 + 1)


def test_looking_at_thousands_of_segments_leaves_the_core_to_training(tmp_path, monkeypatch):
    study, plan, _ = many(tmp_path, monkeypatch)
    clock, slept, goes_on = [0.0], [], iter([True, True, False])

    def look(*_: Any) -> int:
        clock[0] += 0.25
        return 0

    fake = SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append)
    monkeypatch.setattr(progress, "time", fake)
    monkeypatch.setattr(progress, "_epochs_done", look)
    progress.show_progress(study, plan, lambda: next(goes_on))
    assert slept == [0.5, 2.5, 2.5]
