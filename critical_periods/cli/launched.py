"""The ``study`` commands that launchers start; no one else has to know of them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from critical_periods.cli.parser import Parser
from critical_periods.core.errors import UserError
from critical_periods.core.processes import end_with_parent
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan


def launched(argv: Sequence[str]) -> int:
    """Runs one of these commands, and gives its exit code."""
    # Where Slurm is the parent, it ends what it has started by itself.
    end_with_parent()
    parser = Parser(prog="critical-periods study")
    commands = parser.add_subparsers(required=True)
    for name, function in LAUNCHED.items():
        command = commands.add_parser(name)
        command.set_defaults(command=function)
        command.add_argument("output", type=Path)
        if name == "pack":
            command.add_argument("number", type=int)
        if name != "work":
            command.add_argument("name")
    options = parser.parse_args(argv)
    return options.command(options)


def _work(options: argparse.Namespace) -> int:
    from critical_periods.studies.worker import work

    work(StudyFolder(options.output))
    return 0


def _segment(options: argparse.Namespace) -> int:
    from critical_periods.studies.segment import train_segment

    train_segment(*_planned(options, options.name), options.name)
    return 0


def _task(options: argparse.Namespace) -> int:
    from critical_periods.studies.launchers.task import run_task

    return run_task(*_planned(options, options.name), options.name)


def _pack(options: argparse.Namespace) -> int:
    from critical_periods.studies.launchers.packed import run_packed

    names = options.name.split(",")
    return run_packed(*_planned(options, *names), names, options.number)


def _planned(options: argparse.Namespace, *names: str) -> tuple[StudyFolder, Plan]:
    """The folder and the plan that some segments are of."""
    folder = StudyFolder(options.output)
    plan = folder.read_plan()
    for name in names:
        if name not in plan.segments:
            raise UserError(f"the plan in {folder.path} has no segment {name} any more.")
    return folder, plan


LAUNCHED = {"work": _work, "segment": _segment, "task": _task, "pack": _pack}
