"""The script of a Slurm job, which trains some segments of a study one after another."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from critical_periods.core.processes import STOPPED
from critical_periods.studies.slurm_settings import SlurmSettings

# A job goes back to the queue at most so often.
_REQUEUES = 5
# What the last job's comment names instead of segments.
REPORT = "report"
# And that of the job that plans, and of the last job of a round of an adaptive study.
PLAN = "plan"
NEXT = "next"
# So many seconds before a job's time is over, a segment is told to save and to end; in a job of a
# few minutes, a quarter of them. Slurm may say so a minute earlier.
_SECONDS_TO_SAVE = 120

# What is decided about a requeue is decided here, outside any container: by Slurm itself where a
# node is lost or a partition of higher priority wants it, by the script where the time is nearly
# over or a task was killed, which Slurm does not requeue.
_BODY = """\
# The segments of a study, one after another: written by critical-periods, which submits it.
restarts=${{SLURM_RESTART_COUNT:-0}}
if [ "$restarts" -gt {requeues} ]; then
    echo "This job was requeued {requeues} times; run the study again to go on." >&2
    exit 1
fi
is_over=
trap 'is_over=1; [ -z "$task" ] || kill -USR1 "$task"' USR1
trap '[ -z "$task" ] || kill -TERM "$task"' TERM
# Since Slurm 22.05 srun does not take it from the job.
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
{setup}
for segment in {segments}; do
    {command} "$segment" &
    task=$!
    # One that came while no task ran, such as in the setup.
    [ -z "$is_over" ] || kill -USR1 "$task"
    # A signal that is trapped ends a wait; the task may need a while to save.
    wait "$task"; code=$?
    while kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done
    task=
    [ "$code" -eq 0 ] && [ -z "$is_over" ] && continue
    # Where Slurm does not answer for a while, it is asked again.
    for _ in {{1..20}}; do
        state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null) && break
        sleep 5
    done
    # 0: it is done, but there is no time for the next. {stopped}: it was told to end, and has saved
    # what it has. From 129 on: it was killed. Any other failed, and would fail again.
    if [ "$state" = RUNNING ] && {{ [ "$code" -eq 0 ] || [ "$code" -eq {stopped} ] \
|| [ "$code" -gt 128 ]; }} && [ "$restarts" -lt {requeues} ]; then
        # Slurm has it in the queue again before this returns, and takes no exit code from it.
        scontrol requeue "$SLURM_JOB_ID" || echo "Run the study again to go on." >&2
    fi
    exit "$code"
done
"""


def batch_script(
    settings: SlurmSettings,
    name: str,
    folder: Path,
    segments: Sequence[str],
    nodes: int,
    tasks_per_node: int,
    gpus_per_node: int | None,
    packed: int | None = None,
) -> str:
    """The script that trains some segments of the study in a folder.

    Args:
        settings: what the study says of the cluster.
        name: of the job.
        folder: of the study, absolute.
        segments: one after another.
        nodes: how many each of them is trained on.
        tasks_per_node: how many processes each node has.
        gpus_per_node: how many GPUs are asked for; ``None`` asks for none.
        packed: how many of the segments are trained side by side; ``None``: one after another.
    """
    words, loop = ["study", "task", str(folder)], " ".join(segments)
    if packed is not None:
        words, loop = ["study", "pack", str(folder), str(packed)], ",".join(segments)
        cores = packed * (settings.cpus_per_task or 1)
        settings = settings.model_copy(update={"cpus_per_task": cores})
    return _script(
        settings,
        {
            "job-name": name,
            "nodes": nodes,
            "ntasks-per-node": tasks_per_node,
            "gpus-per-node": gpus_per_node,
            "signal": f"B:USR1@{_seconds_to_save(settings.time)}",
            "requeue": "",
            "comment": ",".join(segments),
            "output": folder / "slurm" / f"{segments[0]}.log",
            "open-mode": "append",
        },
        _BODY.format(
            setup=_setup(settings), segments=loop, requeues=_REQUEUES, stopped=STOPPED,
            command=f"srun --kill-on-bad-exit=1 {_command(settings, words)}",
        ),
    )  # fmt: skip


def other_script(
    settings: SlurmSettings,
    name: str,
    log: Path,
    kind: str,
    gpus: int | None,
    *commands: Sequence[str],
) -> str:
    """The script of a job that trains nothing: it writes tables and figures, or plans and submits.

    The first command runs where segments are trained, in the container if there is one; the second,
    which submits what the first has planned, outside of that, where Slurm's commands are.
    """
    outside = settings
    if settings.container is not None:
        outside = settings.model_copy(update={"container": None, "python": None})
    pairs = zip((settings, outside), commands, strict=False)
    lines = " &&\n".join(_command(where, words) for where, words in pairs)
    headers = {
        "job-name": name, "ntasks": 1, "gpus-per-node": gpus, "comment": kind, "output": log,
    }  # fmt: skip
    return _script(settings, headers, f"{_setup(settings)}\n{lines}\n")


def _script(settings: SlurmSettings, headers: dict[str, object], body: str) -> str:
    own = settings.model_dump(include={"partition", "account", "time", "constraint", "qos", "mem"})
    own |= {"cpus-per-task": settings.cpus_per_task}
    lines = [
        f"#SBATCH --{name}={shlex.quote(str(value))}" if value != "" else f"#SBATCH --{name}"
        for name, value in (own | headers).items()
        if value is not None
    ]
    lines += [f"#SBATCH {option}" for option in settings.options]
    return "\n".join(["#!/bin/bash", *lines, body])


def _seconds_to_save(limit: str | None) -> int:
    """How long before the end of a job's time it is told to end.

    Example:
        >>> [_seconds_to_save(limit) for limit in ("2", "2:00", "0:02:00", "1-0", "infinite", None)]
        [30, 30, 30, 120, 120, 120]
    """
    with suppress(ValueError):
        days, _, clock = (limit or "").rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        # One or two numbers without days are minutes and seconds.
        parts = ([] if days or len(parts) == 3 else [0]) + [*parts, 0, 0]
        hours, minutes, seconds = parts[:3]
        whole = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
        return min(_SECONDS_TO_SAVE, whole // 4)
    return _SECONDS_TO_SAVE


def _setup(settings: SlurmSettings) -> str:
    loads = [f"module load {shlex.quote(name)}" for name in settings.modules]
    return "\n".join([*loads, *settings.setup])


def _command(settings: SlurmSettings, arguments: Sequence[str]) -> str:
    """A command of ours, in the container if there is one."""
    own = [settings.python or sys.executable, "-m", "critical_periods", *arguments]
    if settings.container is not None:
        python = settings.python or "python"
        own = ["apptainer", "exec", "--nv", settings.container, python, *own[1:]]
    return shlex.join(own)
