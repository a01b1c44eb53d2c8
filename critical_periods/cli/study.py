"""``critical-periods study plan|run|status|wait|cancel|plot|report|table|predict|schema``."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from critical_periods.cli import study_commands as do
from critical_periods.cli.launched import LAUNCHED, launched
from critical_periods.cli.parser import Parser
from critical_periods.cli.study_plans import cannot_plan
from critical_periods.core.errors import UserError
from critical_periods.studies.launchers.launcher import LAUNCHERS


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
    if options.command not in _LIGHT and (why := cannot_plan()):
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


_Command = Callable[[argparse.Namespace], int]
_COMMANDS: dict[str, tuple[_Command, str]] = {
    "plan": (do.plan, "Print the tree of segments and the epochs that it trains."),
    "run": (do.run, "Train what is missing, then write the results and the curve."),
    "status": (do.status, "Say which segments are done, running, failed and missing."),
    "wait": (do.wait, "Wait for a study's jobs to end, then write the results and the curve."),
    "cancel": (do.cancel, "End a study's jobs, and no others."),
    "plot": (do.plot, "Write the tables and draw the figures again, without training."),
    "report": (do.report, "Write all that is known of a study into one page of HTML."),
    "table": (do.table, "Print the curve as Markdown tables, a row a window."),
    "predict": (do.predict, "Say what of a study's history foretells the loss at its end."),
    "schema": (do.schema, "Print the JSON schema of study files, by which editors check them."),
}


# What the jobs that plan run; no one else has to know of them.
_INNER = {"prepare": (do.prepare, ""), "advance": (do.advance, ""), "submit": (do.submit, "")}
# Those that go without torch; `run` has a job plan then.
_LIGHT = (do.run, do.status, do.wait, do.cancel, do.schema, do.submit)


def _parser(known: Mapping[str, tuple[_Command, str]]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="critical-periods study",
        description="Many runs that share their beginnings, and the critical-period curve of them.",
    )
    added = parser.add_subparsers(required=True, metavar="|".join(known))
    for name, (function, text) in known.items():
        command = added.add_parser(name, help=text, description=text)
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
            add("--per", choices=("path", "segment"), help=text)
    return parser
