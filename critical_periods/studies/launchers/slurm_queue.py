"""Slurm's queue: its programs, and what it knows of a study's jobs."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Collection
from typing import NamedTuple

from critical_periods.core.errors import UserError
from critical_periods.studies.folder import StudyFolder

# A job that is ending holds its segments until its processes have saved, 30 s as Slurm comes.
_SECONDS_TO_END = 120


class SlurmError(UserError):
    """What a program of Slurm has said no to, or that it does not answer."""


class Job(NamedTuple):
    """A job of a study in Slurm's queue.

    Attributes:
        number: Slurm's number of it.
        state: such as ``PENDING`` or ``RUNNING``; ``COMPLETING`` while its processes end, after
            which it may go back to the queue.
        reason: why it does not run, such as ``Priority`` or ``Dependency``.
        left: the time that is left to it.
        segments: what it trains, one after another; of a job that trains nothing, what it does:
            ``("plan",)``, ``("report",)`` or, of the last job of a round, ``("next",)``.
    """

    number: str
    state: str
    reason: str
    left: str
    segments: tuple[str, ...]

    @property
    def said(self) -> str:
        """Its state in words."""
        if self.state == "PENDING":
            return f"queued ({self.reason})"
        if self.state == "COMPLETING":
            return "ending"
        return f"{self.state.lower()} ({self.left} left)"


def jobs(study: StudyFolder) -> list[Job]:
    """The study's jobs that wait or run.

    Raises:
        SlurmError: it does not answer.
        UserError: there is no Slurm here.
    """
    ours = prefix(study)
    listed = _call("squeue", "--me", "--noheader", "--format=%i|%T|%r|%L|%j|%k")
    found = []
    for line in listed.splitlines():
        number, state, reason, left, name, segments = line.split("|", 5)
        if name.startswith(ours) and state != "COMPLETED":
            found.append(Job(number, state, reason, left, tuple(segments.split(","))))
    return found


def settled(study: StudyFolder) -> list[Job]:
    """The study's jobs when none is ending, as such a one may go back to the queue."""
    found = jobs(study)
    latest = time.monotonic() + _SECONDS_TO_END
    if any(job.state == "COMPLETING" for job in found):
        print("Waiting for jobs that are ending.", file=sys.stderr)
    while any(job.state == "COMPLETING" for job in found) and time.monotonic() < latest:
        time.sleep(1)
        found = jobs(study)
    return [job for job in found if job.state != "COMPLETING"]


def end(found: Collection[Job]) -> None:
    """Ends some jobs."""
    if found:
        _call("scancel", *(job.number for job in found))


def prefix(study: StudyFolder) -> str:
    """What the names of the jobs of a folder begin with."""
    return f"cp-{hashlib.sha256(str(study.path.resolve()).encode()).hexdigest()[:8]}-"


def sbatch(script: str, after: Collection[str]) -> str:
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
        raise SlurmError(f"{program} of Slurm failed: {said}.") from error
    return done.stdout
