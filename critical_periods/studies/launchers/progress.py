"""One line that says how far a study is."""

import time
from collections.abc import Callable

from tqdm import tqdm

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan

# Looking at thousands of segments takes at most one part in so many of the time of a core.
_SHARE = 10


def show_progress(
    study: StudyFolder, plan: Plan, is_going_on: Callable[[], bool], poll_seconds: float = 0.5
) -> None:
    """Shows how far a study is while it goes on.

    In a terminal that is one line; anywhere else it is a line for each segment that ends.
    """
    began, before = time.monotonic(), _epochs_done(study, plan)
    untold = [name for name in plan.segments if not study.segment(name).is_done()]
    with tqdm(
        total=plan.epochs, initial=before, unit="epoch", disable=None, dynamic_ncols=True
    ) as bar:
        goes_on, took = True, 0.0
        while goes_on:
            time.sleep(max(poll_seconds, _SHARE * took))
            goes_on = is_going_on()
            looked = time.monotonic()
            now = _epochs_done(study, plan)
            running = "" if bar.disable else _running(study, plan)
            took = time.monotonic() - looked
            if not bar.disable:
                bar.set_postfix_str(running, refresh=False)
                bar.update(now - bar.n)
                bar.refresh()
                continue
            speed = (now - before) / (time.monotonic() - began)
            seconds = (plan.epochs - now) / speed if speed else 0
            left = f", about {tqdm.format_interval(seconds)} left" if seconds else ""
            for name in [name for name in untold if study.segment(name).is_done()]:
                print(f"Segment {name} is done; {now} of {plan.epochs} epochs{left}.", flush=True)
                untold.remove(name)


def _epochs_done(study: StudyFolder, plan: Plan) -> int:
    done = 0
    for name, segment in plan.segments.items():
        folder = study.segment(name)
        reached = segment.stop if folder.is_done() else folder.epochs_done() or 0
        done += min(max(reached, segment.start), segment.stop) - segment.start
    return done


def _running(study: StudyFolder, plan: Plan) -> str:
    return ", ".join(
        f"{name[:6]} at epoch {reached} of {segment.stop}"
        for name, segment in plan.segments.items()
        if (reached := (folder := study.segment(name)).epochs_done()) is not None
        and not folder.is_done()
    )
