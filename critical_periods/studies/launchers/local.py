"""The local launcher: as many workers on this machine as there are devices."""

import os
import subprocess
import sys
from contextlib import suppress

import torch
from filelock import Timeout

from critical_periods.core.processes import start_child
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.progress import show_progress
from critical_periods.studies.plan import Plan
from critical_periods.studies.summary import GrowingSummary
from critical_periods.studies.worker import log_of, missing, why_ended


def launch(study: StudyFolder, plan: Plan, jobs: int | None = None) -> list[str]:
    """Trains all that is missing of a planned study on this machine.

    Returns why workers have ended before all was done, such as for a full disk.


    ``jobs`` are the runs at once; by default one for each device (or ``trainer.devices`` of them),
    on CPUs one for each ``num_threads`` cores.
    """
    for folder in map(study.segment, plan.segments):
        if folder.path.exists():
            with suppress(Timeout), folder.held():
                folder.remove_leftovers()
    if not missing(study, plan):
        return []
    groups = device_groups(plan, jobs)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number, devices in enumerate(groups):
            workers.append(_start(study, number, devices))
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


def _start(study: StudyFolder, number: int, devices: str | None) -> subprocess.Popen[bytes]:
    chosen = {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
    # In an allocation of a cluster, each run would take its number of processes from there.
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-m", "critical_periods", "study", "work", str(study.path)]
    with log_of(study, number).open("wb") as log:
        return start_child(command, env=own | chosen, stdout=log, stderr=subprocess.STDOUT)
