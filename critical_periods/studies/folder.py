"""The files of a study: where each lies, and whether it is what was written."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from csv import Error as CsvError
from csv import reader
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from critical_periods.core.errors import UserError, reason
from critical_periods.core.files import write_text
from critical_periods.core.locks import is_held
from critical_periods.studies.design import Design
from critical_periods.studies.plan import Plan


class SegmentFolder:
    """The files of one segment, in ``<study's folder>/segments/<hash>``.

    ``done.json`` is written last: with it, and a checkpoint of its checksum, the segment is done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.ckpt"
        self.halfway = path / "halfway.ckpt"
        self.metrics = path / "metrics.csv"
        self.done = path / "done.json"
        self.error = path / "error.txt"
        self.diverged = path / "diverged"
        self.progress = path / "progress"

    def lock(self) -> FileLock:
        """Held by the process that trains the segment; the system frees it when that one dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock until the block ends.

        Raises:
            Timeout: another process holds it.
            UserError: the file system has no locks, or the file is another user's.
        """
        try:
            lock = self.lock()
            lock.acquire(timeout=0)
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:
            why = getattr(error, "strerror", None) or reason(error)
            raise UserError(
                f"{self.path / 'lock'} cannot be locked, without which two processes would train "
                f"the same segment: {why}; choose another --output."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def is_running(self) -> bool:
        """Whether some process trains the segment now."""
        try:
            return is_held(self.path / "lock")
        except (OSError, NotImplementedError):
            # In another user's folder, what is there while a segment is trained has to do.
            return self.progress.exists()

    def is_done(self) -> bool:
        """Whether the segment was trained to its end."""
        return self.done.exists() and self.metrics.exists() and self.checkpoint.exists()

    def state(self) -> str:
        """``done``, ``failed``, ``running`` or ``missing``."""
        if self.is_done():
            return "done"
        if self.error.exists():
            return "failed"
        return "running" if self.is_running() else "missing"

    def diverged_in(self) -> int | None:
        """The epoch in which the segment failed as loss or weights were no longer finite."""
        try:
            return int(self.diverged.read_text()) if self.error.exists() else None
        except (OSError, ValueError):
            return None

    def forget_failure(self) -> None:
        """Has the segment tried again."""
        for path in (self.error, self.diverged):
            path.unlink(missing_ok=True)

    def epochs_done(self) -> int | None:
        """Epochs since the run's first that are trained; ``None`` where no process trains it.

        One that was killed leaves its number behind until the next one begins.
        """
        try:
            return int(self.progress.read_text())
        except (OSError, ValueError):
            return None

    def history(self) -> list[dict[str, str]]:
        """The metrics of the run's epochs up to the segment's last; UserError if damaged."""
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                keys, *lines = filter(None, reader(file))
            rows = [dict(zip(keys, line, strict=True)) for line in lines]
        except (ValueError, CsvError):
            rows = []
        if not rows or [row.get("epoch") for row in rows] != [str(n) for n in range(len(rows))]:
            raise UserError(
                f"{self.metrics} is damaged; run the study again, which trains its segment anew."
            )
        return rows

    def mark_done(self, facts: Mapping[str, Any]) -> None:
        """Writes ``done.json``: facts, and size and time of the files that are checked by them."""
        write_json(self.done, {**facts, "files": self._stamps()})

    def is_intact(self, epochs: int) -> bool:
        """Whether checkpoint and metrics are what was written at the end of so many epochs.

        Those of the size and time that ``done.json`` has are not read again, so that a study of
        ten thousand segments goes on in seconds; of others, such as copies, the checksum is taken.
        """
        try:
            facts = json.loads(self.done.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {}
        # Damaged, it may be no fields at all.
        facts = facts if isinstance(facts, dict) else {}
        if facts.get("files") == self._stamps():
            return True
        try:
            intact = is_intact(self.checkpoint) and len(self.history()) == epochs
        except UserError:
            return False
        if intact:
            self.mark_done(facts)
        return intact

    def _stamps(self) -> dict[str, list[int]]:
        stamps = {}
        for path in (self.checkpoint, checksum_file(self.checkpoint), self.metrics):
            with suppress(FileNotFoundError):
                found = path.stat()
                stamps[path.name] = [found.st_size, found.st_mtime_ns]
        return stamps

    def leftovers(self) -> list[Path]:
        """What a killed process left behind.

        That is how far it was, parts of files and, of one that was done, what it would have gone on
        from.
        """
        inside = [(folder, *dirs, *files) for folder, dirs, files in os.walk(self.path)]
        parts = [
            Path(folder, name) for folder, *names in inside for name in names
            if name.endswith(".part")
        ]  # fmt: skip
        rest = [self.progress]
        if self.is_done():
            rest += [self.halfway, checksum_file(self.halfway)]
        return parts + [path for path in rest if path.exists()]

    def remove_leftovers(self) -> None:
        """Takes them away, for whoever holds the segment's lock."""
        for path in self.leftovers():
            if path.is_dir():  # of shards
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Takes the segment's results away, so that it is trained again."""
        # First what says that it is done.
        for path in (self.done, self.checkpoint, checksum_file(self.checkpoint), self.progress):
            path.unlink(missing_ok=True)


class StudyFolder:
    """The folder that a study is run in. It need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_file = path / "plan.json"
        # They are asked for again and again, and paths take longer to make than to look at.
        self._segments: dict[str, SegmentFolder] = {}

    def segment(self, name: str) -> SegmentFolder:
        """The folder of a segment."""
        if name not in self._segments:
            self._segments[name] = SegmentFolder(self.path / "segments" / name)
        return self._segments[name]

    def write_plan(self, plan: Plan) -> None:
        """Keeps the plan for workers, ``status`` and ``plot``; UserError if it cannot."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.plan_file, plan.to_json())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Has what cannot be written here be told in a sentence, as a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(f"--output {self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def running(self) -> Iterator[None]:
        """Has :meth:`is_running` say until the block ends that a command is at it."""
        lock = FileLock(self.path / "run.lock")
        # Who looks holds it for a moment. Of two commands the second one goes on without.
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=1)
        try:
            yield
        finally:
            lock.release()

    def is_running(self) -> bool:
        """Whether a command trains, chooses or reports here."""
        try:
            return is_held(self.path / "run.lock")
        except (OSError, NotImplementedError):
            return False

    def read_plan(self) -> Plan:
        """The plan of the study that was last run here; UserError if it is missing or damaged."""
        try:
            return Plan.from_json(self.plan_file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{self.path} holds no plan.json; run a study with --output {self.path} first."
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self.plan_file} is damaged; run the study again, which writes it anew."
            ) from error

    def settled(self, plan: Plan) -> Plan:
        """A ladder's plan with the design that there was as training of what counts began.

        That is its own where nothing was trained here but calibration seeds.
        """
        if plan.design is None:
            return plan
        before = None
        with suppress(UserError, OSError):  # Missing or damaged, it says nothing of what is here.
            before = self.read_plan()
        aside = plan.design.calibration_seeds
        known = plan.segments | (before.segments if before else {})
        here = [path.name for path in self.path.glob("segments/*")]
        if all(name in known and known[name].seed in aside for name in here):
            return plan
        registered = None if before is None else before.registered
        return replace(plan, registered=registered or Design())

    def failures(self, plan: Plan) -> dict[str, str]:
        """The segment that failed for each that cannot be trained for it, which may be itself."""
        found: dict[str, str] = {}
        for name, segment in plan.segments.items():
            if self.segment(name).error.exists():
                found[name] = name
            elif segment.parent in found:
                found[name] = found[segment.parent]
        return found

    def discard_damaged(self, plan: Plan) -> list[str]:
        """Takes away done segments whose files are not what was written; returns them."""
        damaged = []
        for name, segment in plan.segments.items():
            folder = self.segment(name)
            if folder.is_done() and not folder.is_intact(segment.stop):
                folder.discard()
                damaged.append(name)
        return damaged


def finalize_checkpoint(part: Path, checkpoint: Path) -> None:
    """Gives a checkpoint that has been written its name and its checksum."""
    digest = _digest(part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    # Between the two renames the old checksum does not fit: noticed, never trusted.
    os.replace(part, checkpoint)
    write_text(checksum_file(checkpoint), digest + "\n")


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint has the checksum that it was written with."""
    try:
        return checksum_file(checkpoint).read_text().strip() == _digest(checkpoint)
    except OSError:
        return False


def write_json(path: Path, tree: Mapping[str, Any] | list[str]) -> None:
    """Writes a JSON file."""
    write_text(path, json.dumps(tree, indent=1) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_file(checkpoint: Path) -> Path:
    """Where a checkpoint's checksum is kept."""
    return checkpoint.with_name(checkpoint.name + ".sha256")
