"""The local launcher: as many workers as there are devices, and one line that says how far."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch
from tqdm import tqdm

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.tree import Plan

_POLL_SECONDS = 0.2


def launch(study: StudyFolder, plan: Plan, jobs: int | None = None) -> None:
    """Trains all that is missing of a study on this machine.

    Args:
        study: the folder of the study, planned.
        plan: its plan.
        jobs: runs at once; by default one for each device (or ``trainer.devices`` of them), on
            CPUs one for each ``num_threads`` cores.
    """
    groups = device_groups(plan, jobs)
    workers = [_start(study, number, devices) for number, devices in enumerate(groups)]
    try:
        _watch(study, plan, workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def device_groups(plan: Plan, jobs: int | None = None) -> list[str | None]:
    """For each run at once, the devices that it may see; ``None`` where all share the CPU."""
    config, _ = plan.configs[0]
    trainer = config["trainer"]
    devices = trainer.get("devices", 1)
    number = devices if isinstance(devices, int) and devices > 0 else 1
    available = torch.cuda.device_count()
    if available and trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if len(visible) >= available else [str(d) for d in range(available)]
        groups = [names[i : i + number] for i in range(0, available - number + 1, number)]
        chosen = [",".join(group) for group in groups] or [",".join(names)]
        # More jobs than devices share them in turn.
        return [chosen[job % len(chosen)] for job in range(jobs or len(chosen))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = config.get("num_threads") or cores
    return [None] * (jobs or max(1, (cores or 1) // (threads * number)))


def _start(study: StudyFolder, number: int, devices: str | None) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    command = [sys.executable, "-m", "critical_periods", "study", "work", str(study.path)]
    with (study.path / f"worker_{number}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _watch(study: StudyFolder, plan: Plan, workers: list[subprocess.Popen[bytes]]) -> None:
    done = _epochs_done(study, plan)
    with tqdm(total=plan.epochs, initial=done, unit="epoch", mininterval=1, dynamic_ncols=True) as bar:
        while any(worker.poll() is None for worker in workers):
            time.sleep(_POLL_SECONDS)
            now = _epochs_done(study, plan)
            bar.set_postfix_str(_running(study, plan), refresh=False)
            bar.update(now - bar.n)
        bar.set_postfix_str("")
        bar.update(_epochs_done(study, plan) - bar.n)


def _epochs_done(study: StudyFolder, plan: Plan) -> int:
    done = 0
    for name, segment in plan.segments.items():
        reached = study.segment(name).epochs_done()
        done += min(max(reached, segment.start), segment.stop) - segment.start
    return done


def _running(study: StudyFolder, plan: Plan) -> str:
    running = []
    for name, segment in plan.segments.items():
        folder = study.segment(name)
        if folder.progress.exists() and not folder.is_done() and not folder.error.exists():
            running.append(f"{name[:6]} at epoch {folder.epochs_done()} of {segment.stop}")
    return ", ".join(running)
