"""``critical-periods study plan|run|status|wait|cancel|plot|report|table|schema``."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from critical_periods.cli.parser import Parser
from critical_periods.core.errors import UserError
from critical_periods.core.processes import Terminated, end_with_parent
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.outline import outline
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.study import Study, read_study
from critical_periods.studies.study_file import StudyFile


def study(argv: Sequence[str]) -> int:
    """Runs a ``study`` command, given what follows ``study`` on the command line.

    Returns:
        The exit code: 0, or 1 where a segment failed.

    Raises:
        UserError: the study file, the data or the output folder is not as it should be.
    """
    if argv[:1] in (["work"], ["segment"], ["task"]):
        # Of a task, Slurm is the parent.
        if argv[0] != "task":
            end_with_parent()
        options = _launched_parser().parse_args(argv)
    else:
        options = _parser().parse_args(_repeated(argv))
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
    print(outline(_make_plan(options), folder))
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} must be at least 1.")
    plan, folder = _make_plan(options), StudyFolder(options.output)
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
    if options.launcher == "slurm":
        from critical_periods.studies.launchers import slurm

        settings = read_study(options.study, options.set).slurm
        print(slurm.submit(folder, plan, settings, _plot_command(options), options.per == "path"))
        return 0
    from critical_periods.studies.launchers.local import launch

    try:
        launch(folder, plan, options.jobs)
    except (KeyboardInterrupt, Terminated) as ended:
        done = [name for name in plan.segments if folder.segment(name).is_done()]
        raise type(ended)(
            f"{len(done)} of {len(plan.segments)} segments are done and kept in {folder.path}; the "
            "same command goes on from there."
        ) from ended
    return _finish(folder, plan)


def _plot_command(options: argparse.Namespace) -> list[str]:
    """What a job runs in the end, from whatever folder."""
    changes = [word for change in options.set for word in ("--set", change)]
    files = [str(options.study.absolute()), "--output", str(options.output.absolute())]
    return ["study", "plot", *files, *changes]


def _status(options: argparse.Namespace) -> int:
    folder, plan = _read_plan(options)
    print(outline(plan, folder, _queue_states(folder)))
    _say_design(plan)
    return 0


def _queue_states(folder: StudyFolder) -> dict[str, str]:
    """What Slurm's queue says of the segments; nothing where the study was not submitted."""
    from critical_periods.studies.launchers import slurm

    if not slurm.was_submitted(folder):
        return {}
    try:
        return slurm.states(folder)
    except UserError as error:
        print(f"What waits and runs is not known: {error}", file=sys.stderr)
        return {}


def _cancel(options: argparse.Namespace) -> int:
    from critical_periods.studies.launchers import slurm

    folder, _ = _read_plan(options)
    print(f"Ended {slurm.cancel(folder)} jobs of {folder.path}; what they have saved is kept.")
    return 0


def _wait(options: argparse.Namespace) -> int:
    from critical_periods.studies.launchers import slurm
    from critical_periods.studies.launchers.progress import show_progress

    folder, plan = _read_plan(options)
    show_progress(folder, plan, lambda: bool(slurm.jobs(folder)), poll_seconds=5)
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


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(StudyFile.model_json_schema(), indent=2))
    return 0


def _work(options: argparse.Namespace) -> int:
    from critical_periods.studies.worker import work

    work(StudyFolder(options.output))
    return 0


def _segment(options: argparse.Namespace) -> int:
    from critical_periods.studies.segment import train_segment

    train_segment(*_planned(options), options.name)
    return 0


def _task(options: argparse.Namespace) -> int:
    from critical_periods.studies.launchers.task import run_task

    return run_task(*_planned(options), options.name)


def _planned(options: argparse.Namespace) -> tuple[StudyFolder, Plan]:
    """The folder and the plan that a segment is of."""
    folder = StudyFolder(options.output)
    plan = folder.read_plan()
    if options.name not in plan.segments:
        raise UserError(f"the plan in {folder.path} has no segment {options.name} any more.")
    return folder, plan


def _make_plan(options: argparse.Namespace) -> Plan:
    from critical_periods.studies.resolve import resolve
    from critical_periods.studies.roles import left_out

    read = read_study(options.study, options.set)
    try:
        plan = make_plan(read, *resolve(read))
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
    return plan


def _read_plan(options: argparse.Namespace) -> tuple[StudyFolder, Plan]:
    """The folder and the plan that was last run in it; a message where the file has others."""
    folder = StudyFolder(options.output)
    read, plan = read_study(options.study, options.set), folder.read_plan()
    _check_owner(folder, plan, read.name)
    runs = product(read.variations, read.windows, read.seeds)
    wanted = {repr((variation.columns, window, seed)) for variation, window, seed in runs}
    if wanted != {repr((run.variation, run.window, run.seed)) for run in plan.runs}:
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


def _finish(folder: StudyFolder, plan: Plan) -> int:
    """Writes what is known and says what is not."""
    from critical_periods.studies.report import write_report

    written = write_report(folder, plan)
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
        print(
            f"{len(undone)} of {len(plan.segments)} segments are not done; see the worker_*.log "
            f"in {folder.path}, and run the same command again to train what is missing.",
            file=sys.stderr,
        )
    return 1 if undone else 0


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "plan": (_plan, "Print the tree of segments and the epochs that it trains."),
    "run": (_run, "Train what is missing, then write the results and the curve."),
    "status": (_status, "Say which segments are done, running, failed and missing."),
    "wait": (_wait, "Wait for a study's jobs to end, then write the results and the curve."),
    "cancel": (_cancel, "End a study's jobs, and no others."),
    "plot": (_plot, "Write the tables and draw the figures again, without training."),
    "report": (_report, "Write all that is known of a study into one page of HTML."),
    "table": (_table, "Print the curve as Markdown tables, a row a window."),
    "schema": (_schema, "Print the JSON schema of study files, by which editors check them."),
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="critical-periods study",
        description="Many runs that share their beginnings, and the critical-period curve of them.",
    )
    commands = parser.add_subparsers(required=True, metavar="|".join(_COMMANDS))
    for name, (function, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
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
        if name == "run":
            add("--jobs", type=int, help="runs at once (default: one a device)")
            text = "train here (local, the default) or submit jobs to Slurm and end"
            add("--launcher", choices=("local", "slurm"), default="local", help=text)
            text = "what a job of Slurm trains: a path of the tree (the default) or a segment"
            add("--per", choices=("path", "segment"), default="path", help=text)
    return parser


def _launched_parser() -> argparse.ArgumentParser:
    """The commands that the launcher starts; no one else has to know of them."""
    parser = Parser(prog="critical-periods study")
    commands = parser.add_subparsers(required=True)
    for name, function in (("work", _work), ("segment", _segment), ("task", _task)):
        command = commands.add_parser(name)
        command.set_defaults(command=function)
        command.add_argument("output", type=Path)
        if name != "work":
            command.add_argument("name")
    return parser
