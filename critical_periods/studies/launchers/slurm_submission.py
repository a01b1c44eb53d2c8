"""Submits a study's jobs to Slurm."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from critical_periods.core.errors import UserError
from critical_periods.core.errors import reason as why_of
from critical_periods.core.files import write_text
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.batch_script import (
    NEXT,
    PLAN,
    REPORT,
    batch_script,
    other_script,
)
from critical_periods.studies.launchers.packed import packs
from critical_periods.studies.launchers.slurm_queue import end, prefix, sbatch, settled
from critical_periods.studies.paths import paths
from critical_periods.studies.plan import Plan
from critical_periods.studies.slurm_settings import SlurmSettings
from critical_periods.studies.worker import missing

LONGEST = 60
"""Segments of a job at most: Slurm takes comments of 1,024 characters, and a job's names them."""


def submit(
    study: StudyFolder,
    plan: Plan,
    settings: SlurmSettings,
    report: Sequence[str],
    whole: bool = True,
    packed: int | None = None,
    following: tuple[Sequence[str], Sequence[str]] | None = None,
) -> str:
    """Submits what is missing of a planned study and neither queued nor running.

    A job trains a path of the tree (:func:`~critical_periods.studies.paths.paths`). A branch waits
    until the job of its parent has ended, whatever its end, and looks in the folder whether its
    parent is done. A last job writes tables and figures after all others, or chooses and submits
    the next round of an adaptive study. Jobs that are ending are waited for.

    Args:
        study: the folder, which has the plan.
        plan: what to train.
        settings: of the cluster.
        report: the words of the command that writes tables and figures.
        whole: whether a job trains a whole path; without, one segment.
        packed: how many of these a job trains side by side; ``None``: a job trains one.
        following: of a study with rounds to come, the words of the commands that choose the next
            one and submit it.

    Returns:
        A sentence on what was submitted and what was not.

    Raises:
        UserError: there is no Slurm here, or it does not take the first of the jobs.
    """
    nodes, tasks, gpus = shape(plan, settings, packed)
    folder = study.path.resolve()
    (folder / "slurm").mkdir(exist_ok=True)
    # The last job of a round submits the next, and is no part of that.
    own = os.environ.get("SLURM_JOB_ID")
    in_queue = [job for job in settled(study) if job.number != own]
    others = (PLAN, REPORT, NEXT)
    job_of = {name: job.number for job in in_queue for name in job.segments if name not in others}
    wanted = [name for name in missing(study, plan) if name not in job_of]
    numbers: list[str] = list(dict.fromkeys(job_of.values()))
    full, submitted = "", 0
    ways = paths(plan, wanted, whole, LONGEST // (packed or 1))
    for way in packs(ways, packed or 1):
        script = folder / "slurm" / f"{way[0]}.sh"
        name = f"{prefix(study)}{way[0]}"
        write_text(script, batch_script(settings, name, folder, way, nodes, tasks, gpus, packed))
        parents = {plan.segments[one].parent for one in way}
        after = {job_of[parent] for parent in parents if parent in job_of}
        if settings.array_limit is not None and len(numbers) >= settings.array_limit:
            after.add(numbers[-settings.array_limit])
        try:
            number = sbatch(str(script), after)
        except UserError as error:
            # Of a limit, as of all that may befall it halfway: what is submitted goes on.
            if not numbers:
                raise
            why = why_of(error)
            full = f" Slurm takes no more for now ({why}); run the study again for the rest."
            break
        print(f"Job {number} trains {', '.join(way)}.", flush=True)
        job_of |= dict.fromkeys(way, number)
        numbers.append(number)
        submitted += 1
    kind = REPORT if following is None else NEXT
    last = [job for job in in_queue if job.segments == (kind,)]
    if (submitted or not (last or (kind == REPORT and _is_reported(study, plan)))) and not full:
        end(last)
        script, name = folder / "slurm" / f"{kind}.sh", f"{prefix(study)}{kind}"
        of = (None, report) if following is None else (gpus, *following)
        write_text(script, other_script(settings, name, script.with_suffix(".log"), kind, *of))
        full = _refusal_of_last(str(script), numbers, kind)
    segments = sum(name in job_of for name in wanted)
    text = f"Submitted {submitted} jobs for {segments} segments"
    if waiting := len(job_of.keys() - set(wanted)):
        text += f"; {waiting} other segments are queued or running"
    return f"{text}.{full}"


def _refusal_of_last(script: str, numbers: Sequence[str], kind: str) -> str:
    """Submits the last job; what is to be said where Slurm does not take it."""
    try:
        sbatch(script, numbers)
    except UserError as error:
        if kind == NEXT:
            return f" Slurm takes no job for the next round ({why_of(error)}); run the study again."
        return f" Slurm takes no last job for the report ({why_of(error)}); see `study plot`."
    return ""


def shape(
    plan: Plan, settings: SlurmSettings, packed: int | None = None
) -> tuple[int, int, int | None]:
    """Nodes of a segment, processes and GPUs of each; UserError where the study file differs."""
    trainer = plan.configs[0][0]["trainer"]
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", "auto")
    tasks = _number_of(devices)
    if packed is not None and (nodes, tasks) != (1, 1):
        raise UserError(
            f"packed is {packed}, but a run has trainer.num_nodes={nodes} and "
            f"trainer.devices={devices}; only runs on one device are trained side by side."
        )
    # Segments that are trained side by side share the GPUs of their job.
    for name, said, needed in (
        ("nodes", settings.nodes, nodes),
        ("gpus_per_node", None if packed else settings.gpus_per_node, tasks),
    ):
        if said is not None and said != needed:
            raise UserError(
                f"slurm.{name} is {said}, but a run has trainer.num_nodes={nodes} and "
                f"trainer.devices={devices}; let them be the same."
            )
    on_gpus = trainer.get("accelerator") in ("gpu", "cuda")
    return nodes, tasks, settings.gpus_per_node or (tasks if on_gpus else None)


def _number_of(devices: Any) -> int:
    """How many devices ``trainer.devices`` means; ``auto`` is one."""
    if isinstance(devices, str) and "," in devices:
        devices = list(filter(None, devices.split(",")))
    said = 1 if devices == "auto" else len(devices) if isinstance(devices, list) else devices
    with suppress(ValueError):
        if (number := int(said)) > 0:
            return number
    raise UserError(
        f"trainer.devices is {devices!r}, which is no number of devices that Slurm could be asked "
        "for; give one."
    )


def _is_reported(study: StudyFolder, plan: Plan) -> bool:
    """Whether the tables are newer than all segments that are done or have failed."""
    folders = [study.segment(name) for name in plan.segments]
    ends = [file for one in folders for file in (one.done, one.error) if file.exists()]
    table = study.path / "results.csv"
    written = table.stat().st_mtime if table.exists() else 0
    return all(file.stat().st_mtime <= written for file in ends)
