"""One segment, trained in every process of a cluster's job."""

import os
import signal
import sys
from contextlib import ExitStack

from filelock import Timeout

from critical_periods.core.errors import ERROR_PREFIX
from critical_periods.core.locks import locked
from critical_periods.core.processes import STOPPED, told_to_end
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.segment import StoppedError, train_segment
from critical_periods.studies.summary import update_summary
from critical_periods.studies.worker import record_error


def run_task(study: StudyFolder, plan: Plan, name: str) -> int:
    """Trains a segment of a planned study, unless it is done.

    Slurm starts one job for a segment, whose first process holds its lock as a second guard, where
    the file system has locks.

    Returns:
        The exit code: 0 where it is done, 75 where it was told to end and has saved what it has,
        1 where it failed, or cannot be trained as its parent is not done.
    """
    folder, parent = study.segment(name), plan.segments[name].parent
    if folder.is_done():
        return 0
    if parent is not None and not study.segment(parent).is_done():
        print(
            f"{ERROR_PREFIX}segment {name} starts from {parent}, which is not done.",
            file=sys.stderr,
        )
        return 1
    if folder.error.exists():
        # Where its job has gone back to the queue; `study run` has it tried again.
        print(f"{ERROR_PREFIX}segment {name} has failed before.", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        if os.environ.get("SLURM_PROCID", "0") == "0":
            try:
                folder.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder.path / "lock"))
            except Timeout:
                print(
                    f"{ERROR_PREFIX}segment {name} is trained by another process.", file=sys.stderr
                )
                return 1
            folder.remove_leftovers()
        is_told = stack.enter_context(told_to_end(signal.SIGUSR1, signal.SIGTERM))
        try:
            train_segment(study, plan, name, is_told)
        except (StoppedError, SystemExit):
            # The latter is Lightning's, between the last batch of an epoch and its end.
            if is_told():
                return STOPPED
            raise
        except Exception as error:
            record_error(folder, error)
            return 1
        finally:
            # Where a run of the plan has ended; the last job does what one here leaves undone.
            ends_a_run = any(run.segment == name for run in plan.runs)
            has_ended = folder.is_done() or folder.error.exists()
            if ends_a_run and has_ended and os.environ.get("SLURM_PROCID", "0") == "0":
                update_summary(study, plan)
    return 0
