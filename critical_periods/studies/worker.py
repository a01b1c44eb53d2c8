"""A worker of a study: trains segments, one after another, until none is left that it could."""

import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from critical_periods.core.errors import ERROR_PREFIX, UserError
from critical_periods.core.files import no_space, write_text
from critical_periods.core.processes import start_child
from critical_periods.studies.folder import SegmentFolder, StudyFolder
from critical_periods.studies.plan import Plan, Segment

_POLL_SECONDS = 0.5


def work(study: StudyFolder) -> None:
    """Trains segments of a planned study until none is missing that can be trained.

    Any number of workers may share a folder: a lock keeps each segment to one of them. A segment
    that fails leaves ``error.txt`` and keeps its descendants waiting; the others go on.
    """
    plan = study.read_plan()
    following: dict[str | None, list[str]] = defaultdict(list)
    waiting = dict.fromkeys(missing(study, plan))
    for name in waiting:
        following[plan.segments[name].parent].append(name)
    # Before each only the next ones are looked at, not the thousands that a study may have.
    now = [name for name in waiting if plan.segments[name].parent not in waiting]
    while now:
        for name in ready(study, plan, now):
            if _train(study, plan, name):
                break
        else:
            # Other workers train all that is ready.
            time.sleep(_POLL_SECONDS)
        now = [one for name in now for one in _next(study, plan.segments[name], following[name])]


def _next(study: StudyFolder, segment: Segment, following: list[str]) -> list[str]:
    """What is to be trained in the place of a segment: itself, those after it, or none of them."""
    if any(study.segment(one).error.exists() for one in (segment.parent, segment.name) if one):
        return []
    return following if study.segment(segment.name).is_done() else [segment.name]


def missing(study: StudyFolder, plan: Plan) -> list[str]:
    """Segments that are not done and can still be: none of their ancestors has failed."""
    failed = study.failures(plan)
    return [one for one in plan.segments if one not in failed and not study.segment(one).is_done()]


def ready(study: StudyFolder, plan: Plan, waiting: list[str]) -> Iterator[str]:
    """Those of the waiting segments whose parents are done, the longest way to go first."""
    remaining = plan.remaining()
    for name in sorted(waiting, key=lambda name: -remaining[name]):
        parent = plan.segments[name].parent
        if parent is None or study.segment(parent).is_done():
            yield name


def _train(study: StudyFolder, plan: Plan, name: str) -> bool:
    """Trains a segment unless another worker does; says whether it tried."""
    folder = study.segment(name)
    try:
        with folder.held():
            if folder.is_done() or folder.error.exists():
                return True
            folder.remove_leftovers()
            try:
                _train_here_or_in_a_process(study, plan, name)
            except Exception as error:
                record_error(folder, error)
            return True
    except Timeout:
        return False


def record_error(folder: SegmentFolder, error: Exception) -> None:
    """Leaves one line in ``error.txt``, and the traceback of what is no UserError in the log."""
    message = no_space(error) or str(error)
    if not isinstance(error, UserError) and not no_space(error):
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {message}"
    folder.progress.unlink(missing_ok=True)
    try:
        write_text(folder.error, " ".join(message.split()) + "\n")
    except OSError as second:
        # Tried again, it would fail again, for ever.
        raise UserError(message) from second


def _train_here_or_in_a_process(study: StudyFolder, plan: Plan, name: str) -> None:
    config, _ = plan.configs[plan.segments[name].config]
    trainer = config["trainer"]
    if trainer.get("devices", 1) == 1 and trainer.get("num_nodes", 1) == 1:
        from critical_periods.studies.segment import train_segment

        train_segment(study, plan, name)
        return
    # Lightning starts the other ranks by running this process's own command again.
    command = [sys.executable, "-m", "critical_periods", "study", "segment", str(study.path), name]
    # A file, as other ranks may hold a pipe open for long after the first one has failed.
    with tempfile.TemporaryFile() as errors:
        with start_child(command, stderr=errors) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    sys.stderr.write(said)
    if code:
        raise UserError(told(said) or f"the training ended with exit code {code}.")


def log_of(study: StudyFolder, number: int) -> Path:
    """What a worker that was started by a launcher prints."""
    return study.path / f"worker_{number}.log"


def why_ended(code: int, log: Path) -> str:
    """Why a worker has ended before all was done: a sentence without its end."""
    if code < 0:
        return f"a worker was killed by {signal.Signals(-code).name}"
    if not shutil.disk_usage(log.parent).free:
        # Not even the log has a reason then.
        return f"there is no space left in {log.parent}"
    said = told(log.read_text(encoding="utf-8", errors="replace"))
    return said.rstrip(".") or f"a worker ended with exit code {code}"


def told(said: str) -> str:
    r"""What a process that failed has said of it: our own sentence, or how Python names the error.

    Example:
        >>> told("Traceback (most recent call last):\n  File …\nRuntimeError: one\n  and two\n")
        'RuntimeError: one and two'
    """
    lines = said.strip().splitlines()
    own = [line for line in lines if line.startswith(ERROR_PREFIX)]
    if own:
        return own[-1].removeprefix(ERROR_PREFIX)
    begins = [place for place, line in enumerate(lines) if line.startswith("Traceback (")]
    if begins:
        # Its frames are indented; what follows them may be several lines, indented or not.
        rest = lines[begins[-1] + 1 :]
        frames = next((place for place, line in enumerate(rest) if line[:1] != " "), 0)
        return " ".join(" ".join(rest[frames:]).split())
    return lines[-1] if lines else ""
