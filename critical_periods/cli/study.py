"""``critical-periods study plan|run|status|wait|cancel|plot|report|table|schema``."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from errno import EACCES, EPERM, EROFS
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from critical_periods.cli.launched import LAUNCHED, launched
from critical_periods.cli.parser import Parser
from critical_periods.core.errors import UserError, reason
from critical_periods.core.processes import Terminated
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.launchers import slurm
from critical_periods.studies.launchers.launcher import (
    LAUNCHERS,
    Request,
    launcher,
    launcher_of,
)
from critical_periods.studies.launchers.progress import show_progress
from critical_periods.studies.outline import outline
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.rounds import has_ended
from critical_periods.studies.study import Study, read_study
from critical_periods.studies.study_file import StudyFile

if TYPE_CHECKING:
    from critical_periods.studies.adaptive import Rounds

_POLL_SECONDS = 5


def study(argv: Sequence[str]) -> int:
    """Runs a ``study`` command, given what follows ``study`` on the command line.

    Returns:
        The exit code: 0, or 1 where a segment failed.

    Raises:
        UserError: the study file, the data or the output folder is not as it should be.
    """
    if argv and argv[0] in LAUNCHED:
        return launched(argv)
    known = _INNER if argv and argv[0] in _INNER else _COMMANDS
    options = _parser(known).parse_args(_repeated(argv))
    if options.command not in _LIGHT and (why := _cannot_plan()):
        raise UserError(f"{why}; use a Python that can, or see `study run --launcher slurm`.")
    return options.command(options)


def _repeated(argv: Sequence[str]) -> list[str]:
    """Several changes behind one ``--set``, as a sweep's agent gives them, each behind its own.

    Example:
        >>> _repeated(["--set", "a=1", "b=2", "study.yaml"])
        ['--set', 'a=1', '--set', 'b=2', 'study.yaml']
    """
    words: list[str] = []
    for word in argv:
        is_another = words[-2:-1] == ["--set"] and "=" in word and not word.startswith("-")
        words += ["--set", word] if is_another else [word]
    return words


def _plan(options: argparse.Namespace) -> int:
    folder = None if options.output is None else StudyFolder(options.output)
    plan, _ = _make_plan(options, folder)
    print(outline(plan, folder))
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} must be at least 1.")
    at, folder = launcher(options.launcher), StudyFolder(options.output)
    request = _request(options)
    if why := _cannot_plan():
        at.launch_planning(folder, request, why)
        return 0
    plan, rounds = _prepared(options, folder)
    try:
        why_ended = at.launch(folder, plan, request)
        while at.WAITS and rounds is not None and (following := rounds.advance(folder)) is not None:
            plan = following
            why_ended = at.launch(folder, plan, request)
    except (KeyboardInterrupt, Terminated) as ended:
        done = [name for name in plan.segments if folder.segment(name).is_done()]
        raise type(ended)(
            f"{len(done)} of {len(plan.segments)} segments are done and kept in {folder.path}; the "
            "same command goes on from there."
        ) from ended
    return _finish(folder, plan, why_ended) if at.WAITS else 0


def _prepared(options: argparse.Namespace, folder: StudyFolder) -> tuple[Plan, "Rounds | None"]:
    """The plan of a study, in its folder; what is damaged or has failed there is trained again.

    And, of an adaptive study, what chooses its next runs.
    """
    plan, rounds = _make_plan(options, folder)
    try:
        before = folder.read_plan()
    except (UserError, OSError):
        pass  # There is none, or a damaged one, which is written anew.
    else:
        _check_owner(folder, before, plan.study)
    plan = folder.settled(plan)
    folder.write_plan(plan)
    print(outline(plan))
    _say_design(plan)
    for name in folder.discard_damaged(plan):
        print(f"Segment {name} is damaged; it is trained again.")
    for name in plan.segments:
        folder.segment(name).forget_failure()
    return plan, rounds


def _request(options: argparse.Namespace) -> Request:
    """What a launcher has to know, with the commands that jobs run, from whatever folder."""
    changes = [word for change in options.set for word in ("--set", change)]
    files = [str(options.study.absolute()), "--output", str(options.output.absolute())]
    names = ("plot", "prepare", "advance", "submit")
    commands = {name: ["study", name, *files, *changes] for name in names}
    commands["submit"] += ["--per", options.per]
    study = read_study(options.study, options.set)
    return Request(study, commands, options.jobs, options.per == "path")


def _prepare(options: argparse.Namespace) -> int:
    """Plans in a job, which is no part of how its runs are trained."""
    _forget_job()
    folder = StudyFolder(options.output)
    _prepared(options, folder)
    slurm.keep_planned(folder, read_study(options.study, options.set))
    return 0


def _advance(options: argparse.Namespace) -> int:
    """Chooses the next round in the last job of one; 1 where that one is not finished."""
    from critical_periods.studies.adaptive import Rounds

    _forget_job()
    folder = StudyFolder(options.output)
    if Rounds(read_study(options.study, options.set)).advance(folder) or has_ended(folder):
        return 0
    print("Runs of the last round are not done; run the study again.", file=sys.stderr)
    return 1


def _forget_job() -> None:
    """Has what is built here not take a job's processes for those of a run."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]


def _submit(options: argparse.Namespace) -> int:
    slurm.launch(*_read_plan(options), _request(options))
    return 0


def _cannot_plan() -> str:
    """Why nothing can be planned, trained or drawn here, where not all packages are installed."""
    try:
        import_module("critical_periods.studies.resolve")
    except (ImportError, OSError) as error:
        return f"{sys.executable} cannot import what training needs: {reason(error)}"
    return ""


def _status(options: argparse.Namespace) -> int:
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
    _, plan = _read_plan(options)
    print(outline(plan, folder, queue))
    _say_design(plan)
    return 0


def _cancel(options: argparse.Namespace) -> int:
    folder = StudyFolder(options.output)
    if folder.plan_file.exists():
        _read_plan(options)
    number = launcher_of(folder).cancel(folder)
    print(f"Ended {number} jobs of {folder.path}; what they have saved is kept.")
    return 0


def _wait(options: argparse.Namespace) -> int:
    folder = StudyFolder(options.output)
    at = launcher_of(folder)
    while at.planning(folder) is not None:
        time.sleep(_POLL_SECONDS)
    _, plan = _read_plan(options)
    show_progress(folder, plan, at.going_on(folder, plan), _POLL_SECONDS)
    if plan.adaptive is not None:  # It has grown.
        plan = folder.read_plan()
    return _finish(folder, plan)


def _plot(options: argparse.Namespace) -> int:
    return _finish(*_read_plan(options))


def _report(options: argparse.Namespace) -> int:
    from critical_periods.studies.page import write_page

    folder, plan = _read_plan(options)
    page = options.html or folder.path / "report.html"
    if page.suffix != ".html":
        raise UserError(f"--html {page} must end in .html, as it is written over.")
    if not os.access(page.parent, os.W_OK):
        raise UserError(f"--html {page}: {page.parent} is no folder that can be written to.")
    write_page(folder, plan, page)
    print(f"Wrote {page}, which opens without a network.")
    return 0


def _table(options: argparse.Namespace) -> int:
    from critical_periods.studies.loading import LoadedStudy
    from critical_periods.studies.markdown import markdown_tables

    folder, plan = _read_plan(options)
    study = LoadedStudy(folder, plan)
    print(markdown_tables(study.curve, plan.study, study.recovery), end="")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from critical_periods.cli.predict import predict

    predict(*_read_plan(options), options.measure, read_study(options.study, options.set).ends)
    return 0


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(StudyFile.model_json_schema(), indent=2))
    return 0


def _make_plan(
    options: argparse.Namespace, folder: StudyFolder | None
) -> tuple[Plan, "Rounds | None"]:
    from critical_periods.studies.adaptive import Rounds
    from critical_periods.studies.resolve import resolve
    from critical_periods.studies.roles import left_out

    read = read_study(options.study, options.set)
    try:
        rounds = None if read.adaptive is None else Rounds(read)
        plan = rounds.plan(folder) if rounds else make_plan(read, *resolve(read))
    except UserError as error:
        raise UserError(f"{options.study} (base {read.base_file}): {error}") from error
    names = dict.fromkeys(
        name for config, _ in plan.configs for name in left_out(config["trainer"])
    )
    if names:
        print(
            f"Segments go without {', '.join(names)}; a study saves, logs and shows its progress "
            "by itself.",
            file=sys.stderr,
        )
    return plan, rounds


def _read_plan(options: argparse.Namespace) -> tuple[StudyFolder, Plan]:
    """The folder and the plan that was last run in it; a message where the file has others."""
    folder = StudyFolder(options.output)
    read, plan = read_study(options.study, options.set), folder.read_plan()
    _check_owner(folder, plan, read.name)
    runs = product(read.variations, read.windows, read.seeds)
    wanted = {repr((variation.columns, window, seed)) for variation, window, seed in runs}
    if read.adaptive is not None and plan.adaptive is not None:
        has_others = not plan.adaptive.is_of(read.adaptive, read.seeds)
    else:
        has_others = wanted != {repr((run.variation, run.window, run.seed)) for run in plan.runs}
    if has_others:
        print(
            f"{options.study} has other runs than were last run in {folder.path}, which this is "
            "about; see `critical-periods study plan`.",
            file=sys.stderr,
        )
    elif changes := _changes_in_file(read, plan):
        print(
            f"{options.study} has another design than was last run in {folder.path}, whose rule "
            f"holds here ({changes}).",
            file=sys.stderr,
        )
    return folder, plan


def _changes_in_file(read: Study, plan: Plan) -> str:
    """What is another in the design of a study file than in a plan, in words."""
    if read.design is None or plan.design is None:
        return ""
    return plan.design.changes(replace(read.design, trained=plan.design.trained))


def _say_design(plan: Plan) -> None:
    """Says where the design of a verdict was changed after training had begun."""
    if plan.design_changes:
        print(f"The design was changed after training had begun: {plan.design_changes}.")


def _check_owner(folder: StudyFolder, plan: Plan, name: str) -> None:
    if plan.study != name:
        raise UserError(
            f"{folder.path} holds the study {plan.study!r}, not {name!r}; choose another --output."
        )


def _finish(folder: StudyFolder, plan: Plan, why: Sequence[str] = ()) -> int:
    """Writes what is known and says what is not, and why workers have ended before."""
    if cannot := _cannot_plan():
        print(f"No tables are written, as {cannot}; the last job has written them.")
        written: list[str] = []
    else:
        written = _write_report(folder, plan)
    if written:
        print(f"Wrote {', '.join(written[:-1])} and {written[-1]} to {folder.path}.")
    failed = [name for name in plan.segments if folder.segment(name).error.exists()]
    for name in failed:
        sentence = folder.segment(name).error.read_text(encoding="utf-8").strip()
        print(f"Segment {name} failed: {sentence}", file=sys.stderr)
    undone = [name for name in plan.segments if not folder.segment(name).is_done()]
    for name in failed:
        untried = [one for one in undone if one != name and folder.failure(plan, one) == name]
        if untried:
            print(f"Not tried, as it goes on from {name}: {', '.join(untried)}.", file=sys.stderr)
    if undone:
        reasons = f" ({'; '.join(dict.fromkeys(why))})" if why else ""
        logs = "slurm/*.log" if (folder.path / "slurm").is_dir() else "worker_*.log"
        print(
            f"{len(undone)} of {len(plan.segments)} segments are not done{reasons}; see the {logs} "
            f"in {folder.path}, and run the study again to train what is missing.",
            file=sys.stderr,
        )
    return 1 if undone else 0


def _write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    from critical_periods.studies.report import write_report

    try:
        return write_report(folder, plan)
    except OSError as error:
        if error.errno not in (EACCES, EPERM, EROFS):
            raise
        raise UserError(f"--output {folder.path} cannot be written: {error.strerror}.") from error


_Command = Callable[[argparse.Namespace], int]
_COMMANDS: dict[str, tuple[_Command, str]] = {
    "plan": (_plan, "Print the tree of segments and the epochs that it trains."),
    "run": (_run, "Train what is missing, then write the results and the curve."),
    "status": (_status, "Say which segments are done, running, failed and missing."),
    "wait": (_wait, "Wait for a study's jobs to end, then write the results and the curve."),
    "cancel": (_cancel, "End a study's jobs, and no others."),
    "plot": (_plot, "Write the tables and draw the figures again, without training."),
    "report": (_report, "Write all that is known of a study into one page of HTML."),
    "table": (_table, "Print the curve as Markdown tables, a row a window."),
    "predict": (_predict, "Say what of a study's history foretells the loss at its end."),
    "schema": (_schema, "Print the JSON schema of study files, by which editors check them."),
}


# What the jobs that plan run; no one else has to know of them.
_INNER = {"prepare": (_prepare, ""), "advance": (_advance, ""), "submit": (_submit, "")}
# Those that go without torch; `run` has a job plan then.
_LIGHT = (_run, _status, _wait, _cancel, _schema, _submit)


def _parser(known: Mapping[str, tuple[_Command, str]]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="critical-periods study",
        description="Many runs that share their beginnings, and the critical-period curve of them.",
    )
    commands = parser.add_subparsers(required=True, metavar="|".join(known))
    for name, (function, text) in known.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function, jobs=None)
        if name == "schema":
            continue
        add, needed = command.add_argument, name != "plan"
        add("study", type=Path, help="the study file (YAML)")
        add("--output", type=Path, required=needed, metavar="DIR", help="the study's folder")
        text = "change a field of the study, or of the run that it is based on; repeatable"
        add("--set", action="append", default=[], metavar="FIELD=VALUE", help=text)
        if name == "report":
            text = "the page; by default report.html in the study's folder"
            add("--html", nargs="?", type=Path, metavar="FILE", help=text)
        if name == "predict":
            text = "a logged key to look at; repeatable, by default all"
            add("--measure", action="append", default=[], metavar="KEY", help=text)
        if name == "run":
            add("--jobs", type=int, help="runs at once (default: one a device)")
            text = "train here (local, the default) or submit jobs to Slurm and end"
            add("--launcher", choices=LAUNCHERS, default="local", help=text)
            add(
                "--packed", metavar="N", type="packed={}".format, dest="set", action="append",
                help="how many paths (or segments) a job of Slurm trains side by side",
            )  # fmt: skip
        if name in ("run", "submit"):
            text = "what a job of Slurm trains: a path of the tree (the default) or a segment"
            add("--per", choices=("path", "segment"), default="path", help=text)
    return parser
