"""The launcher for Slurm, whose queue and dependencies are the engine.

What is done and what has failed, the study's folder says; what waits and what runs, Slurm's queue
does, in which each job's comment names its segments. Nothing else keeps books.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from critical_periods.core.errors import UserError
from critical_periods.core.errors import reason as why_of
from critical_periods.core.files import write_text
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers.batch_script import NEXT, PLAN, other_script
from critical_periods.studies.launchers.launcher import Request
from critical_periods.studies.launchers.slurm_queue import (
    SlurmError,
    end,
    jobs,
    prefix,
    sbatch,
    settled,
)
from critical_periods.studies.launchers.slurm_submission import shape, submit
from critical_periods.studies.plan import Plan
from critical_periods.studies.rounds import has_ended
from critical_periods.studies.study import Study
from critical_periods.studies.worker import missing, told

WAITS = False
# Holds what was planned by a job and is not submitted yet.
_PLANNED = "planned"


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
    end([job for job in jobs(study) if job.segments == (PLAN,)])
    with study.writing():
        planned.parent.mkdir(parents=True, exist_ok=True)
        _forget_planning(study)
    # Nothing is trained, but a run is built, which asks for what it is to be trained on.
    configs = [of.configured(of.variations[0])]
    *_, gpus = shape(Plan(of.name, configs, {}, [], of.threshold), of.slurm, of.packed)
    script, log = planned.with_name(f"{PLAN}.sh"), planned.with_name(f"{PLAN}.log")
    log.unlink(missing_ok=True)
    words = request.commands["prepare"], request.commands["submit"]
    write_text(script, other_script(of.slurm, f"{prefix(study)}{PLAN}", log, PLAN, gpus, *words))
    try:
        number = sbatch(str(script), ())
    except UserError:
        script.unlink()
        raise
    print(f"Submitted job {number}, which plans the study and submits the rest, as here {why}.")


def end_choosing(study: StudyFolder) -> None:
    """Ends the job that chooses the next round, as another follows, by what the file says now.

    Were it at it, it would write another plan than the one that is written here.
    """
    end([job for job in jobs(study) if job.segments == (NEXT,)])
    settled(study)


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
            return job.said
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


def states(study: StudyFolder) -> dict[str, str]:
    """What the queue says of segments: ``queued (<reason>)`` or ``running (<time> left)``.

    And of the job that chooses the next round, by the name ``next``.
    """
    found = {}
    for job in jobs(study):
        waiting = [name for name in job.segments if not study.segment(name).is_done()]
        for place, name in enumerate(waiting):
            begins = place == 0 or study.segment(name).epochs_done() is not None
            is_told = begins or job.state == "PENDING"
            found[name] = job.said if is_told else "queued (in a running job)"
    return found


def planning_goes_on(study: StudyFolder) -> Callable[[], bool]:
    """What says, whenever it is called, whether a job that plans waits or runs.

    While Slurm does not answer it is taken to, which is said once.

    Raises:
        UserError: there is no Slurm here, or that job has ended before it had submitted the rest.
    """
    return _patient(lambda: planning(study) is not None, lambda: True)


def going_on(study: StudyFolder, plan: Plan) -> Callable[[], bool]:
    """What says, whenever it is called, whether jobs of the study wait or run.

    While Slurm does not answer they are taken to go on, which is said once, until all segments are
    done, and no round is to come.

    Raises:
        UserError: there is no Slurm here.
    """
    is_adaptive = plan.adaptive is not None

    def meanwhile() -> bool:
        return bool(missing(study, plan)) or (is_adaptive and not has_ended(study))

    return _patient(lambda: bool(jobs(study)), meanwhile)


def _patient(ask: Callable[[], bool], meanwhile: Callable[[], bool]) -> Callable[[], bool]:
    """Asks Slurm, and something else while it does not answer, which is said once."""
    is_silent = False

    def asked() -> bool:
        nonlocal is_silent
        try:
            answer = ask()
        except SlurmError as error:
            if not is_silent:
                print(f"{why_of(error)}; it is asked again until it answers.", file=sys.stderr)
            is_silent = True
            return meanwhile()
        is_silent = False
        return answer

    return asked


def cancel(study: StudyFolder) -> int:
    """Ends the study's jobs, and no others; returns how many there were."""
    found = jobs(study)
    end(found)
    _forget_planning(study)
    return len(found)
