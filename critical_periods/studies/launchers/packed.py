"""Several small segments side by side in one job of a cluster."""

import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence

from critical_periods.core.errors import ERROR_PREFIX
from critical_periods.core.processes import STOPPED, told_to_end
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.local import device_groups, start
from critical_periods.studies.plan import Plan
from critical_periods.studies.worker import ready

_POLL_SECONDS = 0.5
_KILLED = 128 + signal.SIGKILL


def packs(ways: Sequence[tuple[str, ...]], number: int) -> list[tuple[str, ...]]:
    """The segments of each job that trains so many paths side by side.

    Paths that follow one another have about as far to go, and each has the one of its parent in its
    own job or in an earlier one.

    Example:
        >>> packs([("a", "c"), ("b",), ("d",)], 2)
        [('a', 'c', 'b'), ('d',)]
    """
    together = (ways[place : place + number] for place in range(0, len(ways), number))
    return [tuple(name for way in some for name in way) for some in together]


def run_packed(study: StudyFolder, plan: Plan, names: Collection[str], number: int) -> int:
    """Trains some segments of a planned study, at most so many at once, each when its parent is.

    Each is trained by a process of its own, which knows of no allocation. They share the GPUs that
    are visible here in turn, so that all of them are on the same one where there is but one.

    Returns:
        The exit code: 0 where all are done; 75 where they were told to end, and have saved what
        they have; 137 where one was killed; 1 where one failed, or goes on from what is not done.
    """
    free = device_groups(plan, number)
    # One that has failed is tried again where the study is run again.
    untried = [name for name in names if study.segment(name).state() in ("missing", "running")]
    running: dict[str, tuple[subprocess.Popen[bytes], str | None]] = {}
    codes: list[int] = []
    with told_to_end(signal.SIGUSR1, signal.SIGTERM) as is_told:
        has_passed_on = False
        while True:
            for name, (process, devices) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    free.append(devices)
                    codes.append(process.returncode)
            if is_told() and not has_passed_on:
                has_passed_on = True
                for process, _ in running.values():
                    process.send_signal(signal.SIGUSR1)
            for name in [] if is_told() else list(ready(study, plan, untried))[: len(free)]:
                untried.remove(name)
                devices = free.pop(0)
                running[name] = start(["task", str(study.path), name], devices), devices
            if not running:
                break
            time.sleep(_POLL_SECONDS)
        left = [name for name in names if not study.segment(name).is_done()]
        failures = study.failures(plan)
        failed = [name for name in left if name in failures]
        if is_told() and len(left) > len(failed):
            return STOPPED
    if any(code < 0 or code > 128 for code in codes):
        return _KILLED
    for name in (name for name in untried if name not in failed):
        parent = plan.segments[name].parent
        print(
            f"{ERROR_PREFIX}segment {name} starts from {parent}, which is not done.",
            file=sys.stderr,
        )
    return 1 if left else 0
