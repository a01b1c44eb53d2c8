"""The local launcher: as many workers as there are devices, and one line that says how far."""

import os
import subprocess
import sys
import time

import torch
from tqdm import tqdm

from critical_periods.core.processes import start_child
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.worker import missing

_POLL_SECONDS = 0.5


def launch(study: StudyFolder, plan: Plan, jobs: int | None = None) -> None:
    """Trains all that is missing of a planned study on this machine.

    ``jobs`` are the runs at once; by default one for each device (or ``trainer.devices`` of them),
    on CPUs one for each ``num_threads`` cores.
    """
    if not missing(study, plan):
        return
    for name in plan.segments:
        folder = study.segment(name)
        if not folder.is_running():
            # Killed ones left behind how far they were.
            folder.progress.unlink(missing_ok=True)
    groups = device_groups(plan, jobs)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number, devices in enumerate(groups):
            workers.append(_start(study, number, devices))
        _show_progress(study, plan, workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


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
    command = [sys.executable, "-m", "critical_periods", "study", "work", str(study.path)]
    with (study.path / f"worker_{number}.log").open("wb") as log:
        return start_child(command, env=os.environ | chosen, stdout=log, stderr=subprocess.STDOUT)


def _show_progress(study: StudyFolder, plan: Plan, workers: list[subprocess.Popen[bytes]]) -> None:
    """Shows how far the study is until all workers have ended.

    In a terminal that is one line; anywhere else it is a line for each segment that ends.
    """
    began, before = time.monotonic(), _epochs_done(study, plan)
    untold = [name for name in plan.segments if not study.segment(name).is_done()]
    with tqdm(
        total=plan.epochs, initial=before, unit="epoch", disable=None, dynamic_ncols=True
    ) as bar:
        are_alive = True
        while are_alive:
            time.sleep(_POLL_SECONDS)
            are_alive = any(worker.poll() is None for worker in workers)
            now = _epochs_done(study, plan)
            if not bar.disable:
                bar.set_postfix_str(_running(study, plan), refresh=False)
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
