"""The ``study`` commands: each takes the options of its command line and gives its exit code."""

import argparse
import json
import os
import sys
import time

from critical_periods.cli.study_plans import (
    cannot_plan,
    finish,
    kept_plan,
    new_plan,
    prepared_plan,
    say_design,
)
from critical_periods.core.errors import UserError
from critical_periods.core.processes import Terminated
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import slurm
from critical_periods.studies.launchers.batch_script import NEXT
from critical_periods.studies.launchers.launcher import Launcher, Request, launcher, launcher_of
from critical_periods.studies.launchers.progress import show_progress
from critical_periods.studies.outline import outline
from critical_periods.studies.plan import Plan
from critical_periods.studies.rounds import has_ended, stage
from critical_periods.studies.study import read_study
from critical_periods.studies.study_file import StudyFile
from critical_periods.studies.worker import missing

_POLL_SECONDS = 5


def plan(options: argparse.Namespace) -> int:
    """Prints the tree of segments."""
    folder = None if options.output is None else StudyFolder(options.output)
    print(outline(new_plan(options, folder)[0], folder))
    return 0


def run(options: argparse.Namespace) -> int:
    """Trains what is missing, or has it trained."""
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} must be at least 1.")
    _refuse_another_launchers(options)
    at, folder = launcher(options.launcher), StudyFolder(options.output)
    request = _request(options)
    if why := cannot_plan():
        at.launch_planning(folder, request, why)
        return 0
    if options.launcher == "slurm" and request.study.adaptive is not None:
        slurm.end_choosing(folder)
    plan, rounds = prepared_plan(options, folder)
    with folder.running():
        try:
            why_ended = at.launch(folder, plan, request)
            while at.WAITS and rounds and (following := rounds.advance(folder)):
                plan = following
                why_ended = at.launch(folder, plan, request)
        except (KeyboardInterrupt, Terminated) as ended:
            done = [name for name in plan.segments if folder.segment(name).is_done()]
            raise type(ended)(
                f"{len(done)} of {len(plan.segments)} segments are done and kept in {folder.path}; "
                "the same command goes on from there."
            ) from ended
        return finish(folder, plan, why_ended) if at.WAITS else 0


def _refuse_another_launchers(options: argparse.Namespace) -> None:
    """Refuses what the launcher would not heed."""
    if options.launcher == "slurm":
        if options.jobs is not None:
            how = "--packed N trains N side by side in a job, slurm.array_limit bounds the jobs"
            raise UserError(f"--jobs {options.jobs} is of trainings on this machine; {how}.")
        return
    packed = any(change.startswith("packed=") for change in options.set)
    for name, given in (("--per", options.per is not None), ("--packed", packed)):
        if given:
            raise UserError(f"{name} is of jobs of Slurm; add --launcher slurm, or leave it out.")


def _request(options: argparse.Namespace) -> Request:
    """What a launcher has to know, with the commands that jobs run, from whatever folder."""
    changes = [word for change in options.set for word in ("--set", change)]
    files = [str(options.study.absolute()), "--output", str(options.output.absolute())]
    names = ("plot", "prepare", "advance", "submit")
    commands = {name: ["study", name, *files, *changes] for name in names}
    per = options.per or "path"
    commands["submit"] += ["--per", per]
    study = read_study(options.study, options.set)
    return Request(study, commands, options.jobs, per == "path")


def prepare(options: argparse.Namespace) -> int:
    """Plans in a job, which is no part of how its runs are trained."""
    _forget_job()
    folder = StudyFolder(options.output)
    prepared_plan(options, folder)
    slurm.keep_planned(folder, read_study(options.study, options.set))
    return 0


def advance(options: argparse.Namespace) -> int:
    """Chooses the next round in the last job of one; 1 where that one is not finished."""
    from critical_periods.studies.adaptive import Rounds

    was_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    _forget_job()
    folder = StudyFolder(options.output)
    if Rounds(read_study(options.study, options.set)).advance(folder) or has_ended(folder):
        return 0
    plan = folder.read_plan()
    # It may have chosen before it was requeued, and have submitted nothing of it yet.
    if was_requeued and missing(folder, plan):
        return 0
    return finish(folder, plan)


def _forget_job() -> None:
    """Has what is built here not take a job's processes for those of a run."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]


def submit(options: argparse.Namespace) -> int:
    """Submits what a job has planned."""
    slurm.launch(*kept_plan(options), _request(options))
    return 0


def status(options: argparse.Namespace) -> int:
    """Prints how each segment is."""
    folder = StudyFolder(options.output)
    at, queue = launcher_of(folder), {}
    try:
        if (state := at.planning(folder)) is not None:
            print(f"The job that plans the study is {state}.")
            if not folder.plan_file.exists():
                return 0
        if folder.plan_file.exists():
            queue = at.states(folder)
    except UserError as error:
        if not folder.plan_file.exists():
            raise
        print(f"What waits and runs is not known: {error}", file=sys.stderr)
    _, plan = kept_plan(options)
    print(outline(plan, folder, queue))
    say_design(plan)
    if plan.adaptive is not None:
        print(stage(folder))
        if job := queue.get(NEXT):
            print(f"The job that chooses it is {job}.")
    return 0


def wait(options: argparse.Namespace) -> int:
    """Waits until nothing of a study goes on, and writes tables and figures."""
    folder = StudyFolder(options.output)
    at = launcher_of(folder)
    is_planned = at.planning_goes_on(folder)
    while is_planned():
        time.sleep(_POLL_SECONDS)
    _, plan = kept_plan(options)
    while (following := _follow(at, folder, plan)).runs != plan.runs:
        plan = following
    return finish(folder, following)


def _follow(at: Launcher, folder: StudyFolder, plan: Plan) -> Plan:
    """Shows how far a plan is while it goes on; what has become of it, as adaptive ones grow."""
    goes_on = at.going_on(folder, plan)

    def is_going_on() -> bool:
        return goes_on() and (plan.adaptive is None or folder.read_plan().runs == plan.runs)

    show_progress(folder, plan, is_going_on, _POLL_SECONDS)
    return folder.read_plan()


def cancel(options: argparse.Namespace) -> int:
    """Ends the jobs of a study."""
    folder = StudyFolder(options.output)
    if folder.plan_file.exists():
        kept_plan(options)
    number = launcher_of(folder).cancel(folder)
    print(f"Ended {number} jobs of {folder.path}; what they have saved is kept.")
    return 0


def plot(options: argparse.Namespace) -> int:
    """Writes tables and figures."""
    return finish(*kept_plan(options))


def report(options: argparse.Namespace) -> int:
    """Writes the page."""
    from critical_periods.studies.page import write_page

    folder, plan = kept_plan(options)
    page = options.html or folder.path / "report.html"
    if page.suffix != ".html":
        raise UserError(f"--html {page} must end in .html, as it is written over.")
    if not os.access(page.parent, os.W_OK):
        raise UserError(f"--html {page}: {page.parent} is no folder that can be written to.")
    write_page(folder, plan, page)
    print(f"Wrote {page}, which opens without a network.")
    return 0


def table(options: argparse.Namespace) -> int:
    """Prints the curve."""
    from critical_periods.studies.loading import LoadedStudy
    from critical_periods.studies.markdown import markdown_tables

    folder, plan = kept_plan(options)
    study = LoadedStudy(folder, plan)
    print(markdown_tables(study.curve, plan.study, study.recovery), end="")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Writes ``predictions.csv``, and ``ends.csv`` where a detector is given, and prints them."""
    import pandas as pd

    from critical_periods.studies.detector import detections
    from critical_periods.studies.loading import LoadedStudy
    from critical_periods.studies.prediction import predictions
    from critical_periods.studies.tables import as_table, write_table

    folder, plan = kept_plan(options)
    rows = LoadedStudy(folder, plan).rows("results")
    tables = {"predictions": predictions(folder, plan, rows, options.measure)}
    if (ends := read_study(options.study, options.set).ends) is not None:
        tables["ends"] = detections(folder, plan, rows, ends)
    for name, found in tables.items():
        write_table(folder.path / f"{name}.csv", found)
        table = as_table(found)
        if name == "predictions" and "chosen_rho" in table:
            order = table["chosen_rho"].abs().sort_values(ascending=False, kind="stable").index
            table = table.loc[order]
        with pd.option_context("display.width", None, "display.max_columns", None):
            print(table.to_string(index=False, float_format="{:.3g}".format))
    print(f"Wrote {' and '.join(f'{name}.csv' for name in tables)} to {folder.path}.")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Prints the schema of study files."""
    print(json.dumps(StudyFile.model_json_schema(), indent=2))
    return 0
