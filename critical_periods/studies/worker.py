"""A worker: trains whatever segment is missing and ready, until nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from filelock import Timeout

from critical_periods.errors import UserError
from critical_periods.studies.folder import StudyFolder, write_text
from critical_periods.studies.tree import Plan

_POLL_SECONDS = 0.5


def work(study: StudyFolder) -> None:
    """Trains segments of a planned study until none is missing that can be trained.

    Any number of workers may share a folder: a lock keeps each segment to one of them. A segment
    that fails leaves ``error.txt`` and keeps its descendants waiting; the others go on.

    Args:
        study: the folder of a study that has been planned.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    plan = study.read_plan()
    while True:
        waiting = missing(study, plan)
        if not waiting:
            return
        for name in ready(study, plan, waiting):
            if _train(study, plan, name):
                break
        else:
            # All that is ready is in other hands.
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
    remaining: dict[str, int] = {}
    for name in reversed(plan.segments):
        segment = plan.segments[name]
        length = remaining.get(name, 0) + segment.stop - segment.start
        remaining[name] = length
        if segment.parent is not None:
            remaining[segment.parent] = max(remaining.get(segment.parent, 0), length)
    for name in sorted(waiting, key=lambda name: -remaining[name]):
        parent = plan.segments[name].parent
        if parent is None or study.segment(parent).is_done():
            yield name


def _train(study: StudyFolder, plan: Plan, name: str) -> bool:
    """Trains a segment unless another worker does; says whether it tried."""
    folder = study.segment(name)
    try:
        with folder.lock().acquire(timeout=0):
            if folder.is_done() or folder.error.exists():
                return True
            try:
                _train_here_or_in_a_process(study, plan, name)
            except UserError as error:
                write_text(folder.error, f"{error}\n")
            except Exception as error:
                traceback.print_exc()
                sentence = " ".join(str(error).split()) or "no message"
                write_text(folder.error, f"{type(error).__name__}: {sentence}\n")
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
    result = subprocess.run(command, stdout=sys.stdout, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(result.stderr)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise UserError(lines[-1].removeprefix("critical-periods: error: "))


def _end_with_parent(parent: int) -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
