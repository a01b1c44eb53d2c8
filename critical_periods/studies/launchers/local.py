"""The local launcher: as many workers on this machine as there are devices."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from filelock import Timeout

from critical_periods.core.errors import UserError
from critical_periods.core.processes import start_child
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.launcher import Request
from critical_periods.studies.launchers.progress import show_progress
from critical_periods.studies.plan import Plan
from critical_periods.studies.worker import log_of, missing, why_ended

WAITS = True


def launch(study: StudyFolder, plan: Plan, request: Request) -> list[str]:
    """Trains all that is missing of a planned study on this machine, and is done with it then.

    ``request.jobs`` are the runs at once; by default one for each device (or ``trainer.devices`` of
    them), on CPUs one for each ``num_threads`` cores.

    Returns:
        Why workers have ended before all was done, such as for a full disk.
    """
    # It needs torch and more, which the machine that only says how a study is may not have.
    from critical_periods.studies.summary import GrowingSummary

    for folder in map(study.segment, plan.segments):
        if folder.leftovers():
            with suppress(Timeout), folder.held():
                folder.remove_leftovers()
    if not missing(study, plan):
        return []
    groups = device_groups(plan, request.jobs)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number, devices in enumerate(groups):
            with log_of(study, number).open("wb") as log:
                words = ["work", str(study.path)]
                workers.append(start(words, devices, stdout=log, stderr=subprocess.STDOUT))
        summary = GrowingSummary(study, plan)

        def goes_on() -> bool:
            summary.update()
            return any(worker.poll() is None for worker in workers)

        show_progress(study, plan, goes_on)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    codes = enumerate(worker.returncode for worker in workers)
    return [why_ended(code, log_of(study, number)) for number, code in codes if code]


def launch_planning(study: StudyFolder, request: Request, why: str) -> None:
    """Nothing: what cannot be planned on this machine cannot be trained on it.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"{why}; use a Python that can, or submit with --launcher slurm, whose first job plans."
    )


def planning(study: StudyFolder) -> None:
    """Nothing, as a study is planned before it is trained."""


def planning_goes_on(study: StudyFolder) -> Callable[[], bool]:
    """Never, likewise."""
    return lambda: False


def states(study: StudyFolder) -> dict[str, str]:
    """Nothing that the folder does not say."""
    return {}


def going_on(study: StudyFolder, plan: Plan) -> Callable[[], bool]:
    """What says, whenever it is called, whether a command runs the study or trains a segment."""
    return lambda: (
        study.is_running()
        or any(study.segment(name).state() == "running" for name in plan.segments)
    )


def cancel(study: StudyFolder) -> int:
    """Nothing, as whoever has started it can end it.

    Raises:
        UserError: always.
    """
    raise UserError(f"{study.path} has no jobs; end the command that trains it with Ctrl-C.")


def device_groups(plan: Plan, jobs: int | None = None) -> list[str | None]:
    """For each run at once, the devices that it may see; ``None`` where it may see all."""
    config, _ = plan.configs[0]
    trainer = config["trainer"]
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list) or "," in str(devices):
        # These are the numbers of devices that the user has chosen.
        return [None] * (jobs or 1)
    # Several runs, each on a device of its own, beat one run on all.
    number = 1 if devices == "auto" else int(devices)
    import torch

    available = torch.cuda.device_count()
    if available and trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(place) for place in range(available)]
        number = available if number < 1 else min(number, available)
        groups = [names[i : i + number] for i in range(0, available - number + 1, number)]
        # More jobs than devices share them in turn.
        return [",".join(groups[job % len(groups)]) for job in range(jobs or len(groups))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = config.get("num_threads") or cores or 1
    return [None] * (jobs or max(1, (cores or 1) // (threads * max(1, number))))


def start(words: Sequence[str], devices: str | None, **settings: Any) -> subprocess.Popen[bytes]:
    """Starts a ``study`` command that ends with this process and sees some devices alone."""
    chosen = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
    # In an allocation of a cluster, each run would take its number of processes from there.
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-m", "critical_periods", "study", *words]
    return start_child(command, env=own | chosen, **settings)
