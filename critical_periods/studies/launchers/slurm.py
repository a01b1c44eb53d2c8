"""The launcher for Slurm, whose queue and dependencies are the engine.

What is done and what has failed, the study's folder says; what waits and what runs, Slurm's queue
does, in which each job's comment names its segments. Nothing else keeps books.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from critical_periods.core.errors import UserError
from critical_periods.core.errors import reason as why_of
from critical_periods.core.files import write_text
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.batch_script import (
    NEXT,
    PLAN,
    REPORT,
    batch_script,
    planning_script,
    report_script,
)
from critical_periods.studies.launchers.launcher import Request
from critical_periods.studies.launchers.packed import packs
from critical_periods.studies.paths import paths
from critical_periods.studies.plan import Plan
from critical_periods.studies.rounds import has_ended
from critical_periods.studies.slurm_settings import SlurmSettings
from critical_periods.studies.study import Study
from critical_periods.studies.worker import missing, told

LONGEST = 60
"""Segments of a job at most: Slurm takes comments of 1,024 characters, and a job's names them."""
WAITS = False
# Holds what was planned by a job and is not submitted yet.
_PLANNED = "planned"
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
    nodes, tasks, gpus = _shape(plan, settings, packed)
    folder = study.path.resolve()
    (folder / "slurm").mkdir(exist_ok=True)
    # The last job of a round submits the next, and is no part of that.
    own = os.environ.get("SLURM_JOB_ID")
    in_queue = [job for job in _settled(study) if job.number != own]
    others = (PLAN, REPORT, NEXT)
    job_of = {name: job.number for job in in_queue for name in job.segments if name not in others}
    wanted = [name for name in missing(study, plan) if name not in job_of]
    numbers: list[str] = list(dict.fromkeys(job_of.values()))
    full, submitted = "", 0
    ways = paths(plan, wanted, whole, LONGEST // (packed or 1))
    for way in packs(ways, packed or 1):
        script = folder / "slurm" / f"{way[0]}.sh"
        name = f"{_prefix(study)}{way[0]}"
        write_text(script, batch_script(settings, name, folder, way, nodes, tasks, gpus, packed))
        parents = {plan.segments[one].parent for one in way}
        after = {job_of[parent] for parent in parents if parent in job_of}
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
        print(f"Job {number} trains {', '.join(way)}.", flush=True)
        job_of |= dict.fromkeys(way, number)
        numbers.append(number)
        submitted += 1
    kind = REPORT if following is None else NEXT
    last = [job for job in in_queue if job.segments == (kind,)]
    if (submitted or not (last or (kind == REPORT and _is_reported(study, plan)))) and not full:
        _cancel(last)
        script, name = folder / "slurm" / f"{kind}.sh", f"{_prefix(study)}{kind}"
        text = report_script(settings, name, folder, report)
        if following is not None:
            text = planning_script(
                settings, name, script.with_suffix(".log"), gpus, *following, kind
            )
        write_text(script, text)
        try:
            _sbatch(str(script), numbers)
        except UserError as error:
            why = why_of(error)
            full = f" Slurm takes no last job for the report ({why}); see `study plot`."
            if following is not None:
                full = f" Slurm takes no job for the next round ({why}); run the study again."
    segments = sum(name in job_of for name in wanted)
    text = f"Submitted {submitted} jobs for {segments} segments"
    if waiting := len(job_of.keys() - set(wanted)):
        text += f"; {waiting} other segments are queued or running"
    return f"{text}.{full}"


def launch(study: StudyFolder, plan: Plan, request: Request) -> Sequence[str]:
    """Submits what is missing, says what that is, and leaves it to Slurm."""
    of = request.study
    report, following = request.commands["plot"], None
    if plan.adaptive is not None and not has_ended(study):
        following = request.commands["advance"], request.commands["submit"]
    print(submit(study, plan, of.slurm, report, request.whole, of.packed, following))
    _forget_planning(study)
    return ()


def launch_planning(study: StudyFolder, request: Request, why: str) -> None:
    """Submits a job that plans, and submits the rest from within.

    Where such a job has planned this very study, but could not submit, the rest is submitted here.
    """
    of, folder = request.study, study.path.resolve()
    planned = folder / "slurm" / _PLANNED
    if planned.exists() and planned.read_text() == _digest(of):
        launch(study, study.read_plan(), request)
        return
    _cancel([job for job in jobs(study) if job.segments == (PLAN,)])
    try:
        planned.parent.mkdir(parents=True, exist_ok=True)
        _forget_planning(study)
    except OSError as error:
        raise UserError(f"--output {study.path} cannot be written: {error.strerror}.") from error
    # Nothing is trained, but a run is built, which asks for what it is to be trained on.
    configs = [of.configured(of.variations[0])]
    *_, gpus = _shape(Plan(of.name, configs, {}, [], of.threshold), of.slurm, of.packed)
    script, log = planned.with_name(f"{PLAN}.sh"), planned.with_name(f"{PLAN}.log")
    log.unlink(missing_ok=True)
    words = request.commands["prepare"], request.commands["submit"]
    write_text(script, planning_script(of.slurm, f"{_prefix(study)}{PLAN}", log, gpus, *words))
    try:
        number = _sbatch(str(script), ())
    except UserError:
        script.unlink()
        raise
    print(f"Submitted job {number}, which plans the study and submits the rest, as here {why}.")


def keep_planned(study: StudyFolder, of: Study) -> None:
    """Notes of a plan that a job has made from which study file it is, until it is submitted."""
    write_text(study.path / "slurm" / _PLANNED, _digest(of))


def planning(study: StudyFolder) -> str | None:
    """The state of the job that plans.

    Raises:
        UserError: it has ended before it had submitted the rest.
    """
    script = study.path / "slurm" / f"{PLAN}.sh"
    if not script.exists():
        return None
    for job in jobs(study):
        if job.segments == (PLAN,):
            return _state(job)
    # It may have ended well meanwhile.
    if not script.exists():
        return None
    log = script.with_suffix(".log")
    said = told(log.read_text(errors="replace")) if log.exists() else "it has said nothing"
    raise UserError(
        f"the job that plans the study has ended before the rest was submitted: "
        f"{said.rstrip('.')}; see {log}, and run the study again."
    )


def _forget_planning(study: StudyFolder) -> None:
    for name in (_PLANNED, f"{PLAN}.sh"):
        (study.path / "slurm" / name).unlink(missing_ok=True)


def _digest(study: Study) -> str:
    """What a study file says, by whatever path it was read."""
    fields = asdict(study) | {"base_file": None}
    return hashlib.sha256(json.dumps(fields, default=repr).encode()).hexdigest()


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
            begins = place == 0 or study.segment(name).epochs_done() is not None
            is_told = begins or job.state == "PENDING"
            found[name] = _state(job) if is_told else "queued (in a running job)"
    return found


def _state(job: Job) -> str:
    if job.state == "PENDING":
        return f"queued ({job.reason})"
    if job.state == "COMPLETING":
        return "ending"
    return f"{job.state.lower()} ({job.left} left)"


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
    _forget_planning(study)
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


def _shape(
    plan: Plan, settings: SlurmSettings, packed: int | None = None
) -> tuple[int, int, int | None]:
    """Nodes of a segment, processes and GPUs of each; UserError where the study file differs."""
    trainer = plan.configs[0][0]["trainer"]
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", "auto")
    tasks = 1 if devices == "auto" else len(devices) if isinstance(devices, list) else int(devices)
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
