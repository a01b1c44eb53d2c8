"""The launcher for Slurm, whose queue and dependencies are the engine.

What is done and what has failed, the study's folder says; what waits and what runs, Slurm's queue
does, in which each job's comment names its segments. Nothing else keeps books.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from critical_periods.core.errors import UserError
from critical_periods.core.errors import reason as why_of
from critical_periods.core.files import write_text
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.batch_script import REPORT, batch_script, report_script
from critical_periods.studies.paths import paths
from critical_periods.studies.plan import Plan
from critical_periods.studies.slurm_settings import SlurmSettings
from critical_periods.studies.worker import missing

LONGEST = 60
"""Segments of a job at most: Slurm takes comments of 1,024 characters, and a job's names them."""
# A job that is ending holds its segments until its processes have saved, 30 s as Slurm comes.
_SECONDS_TO_END = 120


class Job(NamedTuple):
    """A job of a study in Slurm's queue.

    Attributes:
        number: Slurm's number of it.
        state: such as ``PENDING`` or ``RUNNING``; ``COMPLETING`` while its processes end, after
            which it may go back to the queue.
        reason: why it does not run, such as ``Priority`` or ``Dependency``.
        left: the time that is left to it.
        segments: what it trains, one after another; of the last job, ``("report",)``.
    """

    number: str
    state: str
    reason: str
    left: str
    segments: tuple[str, ...]


def submit(
    study: StudyFolder,
    plan: Plan,
    settings: SlurmSettings,
    report: Sequence[str],
    whole: bool = True,
) -> str:
    """Submits what is missing of a planned study and neither queued nor running.

    A job trains a path of the tree (:func:`~critical_periods.studies.paths.paths`). A branch waits
    until the job of its parent has ended, whatever its end, and looks in the folder whether its
    parent is done. A last job writes tables and figures after all others. Jobs that are ending are
    waited for.

    Args:
        study: the folder, which has the plan.
        plan: what to train.
        settings: of the cluster.
        report: the words of the command that writes tables and figures.
        whole: whether a job trains a whole path; without, one segment.

    Returns:
        A sentence on what was submitted and what was not.

    Raises:
        UserError: there is no Slurm here, or it does not take the first of the jobs.
    """
    nodes, tasks, gpus = _shape(plan, settings)
    folder = study.path.resolve()
    (folder / "slurm").mkdir(exist_ok=True)
    in_queue = _settled(study)
    job_of = {name: job.number for job in in_queue for name in job.segments if name != REPORT}
    wanted = [name for name in missing(study, plan) if name not in job_of]
    numbers: list[str] = list(dict.fromkeys(job_of.values()))
    full, submitted = "", 0
    for way in paths(plan, wanted, whole, LONGEST):
        script = folder / "slurm" / f"{way[0]}.sh"
        name = f"{_prefix(study)}{way[0]}"
        write_text(script, batch_script(settings, name, folder, way, nodes, tasks, gpus))
        parent = plan.segments[way[0]].parent
        after = {job_of[parent]} if parent in job_of else set()
        if settings.array_limit is not None and len(numbers) >= settings.array_limit:
            after.add(numbers[-settings.array_limit])
        try:
            number = _sbatch(str(script), after)
        except UserError as error:
            # Of a limit, as of all that may befall it halfway: what is submitted goes on.
            if not numbers:
                raise
            why = why_of(error)
            full = f" Slurm takes no more for now ({why}); run the study again for the rest."
            break
        job_of |= dict.fromkeys(way, number)
        numbers.append(number)
        submitted += 1
    last = [job for job in in_queue if job.segments == (REPORT,)]
    if (submitted or not (last or _is_reported(study, plan))) and not full:
        _cancel(last)
        script = folder / "slurm" / f"{REPORT}.sh"
        write_text(script, report_script(settings, f"{_prefix(study)}{REPORT}", folder, report))
        try:
            _sbatch(str(script), numbers)
        except UserError as error:
            why = why_of(error)
            full = f" Slurm takes no last job for the report ({why}); see `study plot`."
    segments = sum(name in job_of for name in wanted)
    text = f"Submitted {submitted} jobs for {segments} segments"
    if in_queue:
        text += f"; {len(set(job_of) - set(wanted))} other segments are queued or running"
    return f"{text}.{full}"


def was_submitted(study: StudyFolder) -> bool:
    """Whether jobs of the study were ever submitted; their scripts are in its folder."""
    return (study.path / "slurm").is_dir()


def jobs(study: StudyFolder) -> list[Job]:
    """The study's jobs that wait or run.

    Raises:
        UserError: there is no Slurm here, or it does not answer.
    """
    prefix = _prefix(study)
    listed = _call("squeue", "--me", "--noheader", "--format=%i|%T|%r|%L|%j|%k")
    found = []
    for line in listed.splitlines():
        number, state, reason, left, name, segments = line.split("|", 5)
        if name.startswith(prefix) and state != "COMPLETED":
            found.append(Job(number, state, reason, left, tuple(segments.split(","))))
    return found


def states(study: StudyFolder) -> dict[str, str]:
    """What the queue says of segments: ``queued (<reason>)`` or ``running (<time> left)``."""
    found = {}
    for job in jobs(study):
        waiting = [name for name in job.segments if not study.segment(name).is_done()]
        for place, name in enumerate(waiting):
            if job.state == "PENDING":
                found[name] = f"queued ({job.reason})"
            elif job.state == "COMPLETING":
                found[name] = "ending"
            elif place == 0:
                found[name] = f"{job.state.lower()} ({job.left} left)"
            else:
                found[name] = "queued (in a running job)"
    return found


def going_on(study: StudyFolder, plan: Plan) -> Callable[[], bool]:
    """What says, whenever it is called, whether jobs of the study wait or run.

    While Slurm does not answer they are taken to go on, which is said once, until all segments are
    done.

    Raises:
        UserError: there is no Slurm here.
    """
    is_silent = False

    def is_going_on() -> bool:
        nonlocal is_silent
        try:
            found = jobs(study)
        except UserError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise
            if not is_silent:
                print(f"{why_of(error)}; it is asked again until it answers.", file=sys.stderr)
            is_silent = True
            return bool(missing(study, plan))
        is_silent = False
        return bool(found)

    return is_going_on


def cancel(study: StudyFolder) -> int:
    """Ends the study's jobs, and no others; returns how many there were."""
    found = jobs(study)
    _cancel(found)
    return len(found)


def _settled(study: StudyFolder) -> list[Job]:
    """The study's jobs when none is ending, as such a one may go back to the queue."""
    found = jobs(study)
    end = time.monotonic() + _SECONDS_TO_END
    if any(job.state == "COMPLETING" for job in found):
        print("Waiting for jobs that are ending.", file=sys.stderr)
    while any(job.state == "COMPLETING" for job in found) and time.monotonic() < end:
        time.sleep(1)
        found = jobs(study)
    return [job for job in found if job.state != "COMPLETING"]


def _is_reported(study: StudyFolder, plan: Plan) -> bool:
    """Whether the tables are newer than all segments that are done or have failed."""
    folders = [study.segment(name) for name in plan.segments]
    ends = [file for one in folders for file in (one.done, one.error) if file.exists()]
    table = study.path / "results.csv"
    written = table.stat().st_mtime if table.exists() else 0
    return all(file.stat().st_mtime <= written for file in ends)


def _cancel(found: Sequence[Job]) -> None:
    if found:
        _call("scancel", *(job.number for job in found))


def _prefix(study: StudyFolder) -> str:
    """What the names of the jobs of a folder begin with."""
    return f"cp-{hashlib.sha256(str(study.path.resolve()).encode()).hexdigest()[:8]}-"


def _shape(plan: Plan, settings: SlurmSettings) -> tuple[int, int, int | None]:
    """Nodes of a segment, processes and GPUs of each; UserError where the study file differs."""
    trainer = plan.configs[0][0]["trainer"]
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", "auto")
    tasks = 1 if devices == "auto" else len(devices) if isinstance(devices, list) else int(devices)
    for name, said, needed in (
        ("nodes", settings.nodes, nodes),
        ("gpus_per_node", settings.gpus_per_node, tasks),
    ):
        if said is not None and said != needed:
            raise UserError(
                f"slurm.{name} is {said}, but a run has trainer.num_nodes={nodes} and "
                f"trainer.devices={devices}; let them be the same."
            )
    on_gpus = trainer.get("accelerator") in ("gpu", "cuda")
    return nodes, tasks, settings.gpus_per_node or (tasks if on_gpus else None)


def _sbatch(script: str, after: Sequence[str] | set[str]) -> str:
    """Submits a script to run after some jobs; returns its number."""
    dependency = ["--dependency=afterany:" + ":".join(sorted(after))] if after else []
    answer = _call("sbatch", "--parsable", *dependency, script)
    # With several clusters the name of this one follows.
    return answer.strip().split(";")[0]


def _call(program: str, *arguments: str) -> str:
    """What a program of Slurm prints."""
    # One that is called within a job must not take its settings from that job.
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
    command = [program, *arguments]
    try:
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{program} was not found; --launcher slurm needs a node of a Slurm cluster from which "
            "jobs can be submitted."
        ) from error
    except subprocess.CalledProcessError as error:
        lines = (line.strip() for line in error.stderr.splitlines())
        said = "; ".join(line.removeprefix(f"{program}: error: ") for line in lines if line)
        raise UserError(f"{program} of Slurm failed: {said}.") from error
    return done.stdout
