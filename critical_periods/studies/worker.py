"""A worker of a study: trains segments, one after another, until none is left that it could."""

import sys
import tempfile
import time
import traceback
from collections.abc import Iterator

from filelock import Timeout

from critical_periods.core.errors import ERROR_PREFIX, UserError
from critical_periods.core.files import write_text
from critical_periods.core.processes import start_child
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan

_POLL_SECONDS = 0.5


def work(study: StudyFolder) -> None:
    """Trains segments of a planned study until none is missing that can be trained.

    Any number of workers may share a folder: a lock keeps each segment to one of them. A segment
    that fails leaves ``error.txt`` and keeps its descendants waiting; the others go on.
    """
    plan = study.read_plan()
    while waiting := missing(study, plan):
        for name in ready(study, plan, waiting):
            if _train(study, plan, name):
                break
        else:
            # Other workers train all that is ready.
            time.sleep(_POLL_SECONDS)


def missing(study: StudyFolder, plan: Plan) -> list[str]:
    """Segments that are not done and can still be: none of their ancestors has failed."""
    failed: set[str] = set()
    waiting = []
    for name, segment in plan.segments.items():
        folder = study.segment(name)
        if segment.parent in failed or folder.error.exists():
            failed.add(name)
        elif not folder.is_done():
            waiting.append(name)
    return waiting


def ready(study: StudyFolder, plan: Plan, waiting: list[str]) -> Iterator[str]:
    """Those of the waiting segments whose parents are done, the longest way to go first."""
    remaining: dict[str | None, int] = dict.fromkeys([None, *plan.segments], 0)
    for name, segment in reversed(plan.segments.items()):
        remaining[name] += segment.stop - segment.start
        remaining[segment.parent] = max(remaining[segment.parent], remaining[name])
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
            # One that was killed here left behind how far it was.
            folder.progress.unlink(missing_ok=True)
            try:
                _train_here_or_in_a_process(study, plan, name)
            except Exception as error:
                message = str(error)
                if not isinstance(error, UserError):
                    traceback.print_exc()
                    message = f"{type(error).__name__}: {message}"
                write_text(folder.error, " ".join(message.split()) + "\n")
                folder.progress.unlink(missing_ok=True)
            return True
    except Timeout:
        return False


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
            code = process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    sys.stderr.write(said)
    if code:
        lines = said.strip().splitlines() or [f"the training ended with exit code {code}"]
        own = [line for line in lines if line.startswith(ERROR_PREFIX)]
        raise UserError([*lines, *own][-1].removeprefix(ERROR_PREFIX))
