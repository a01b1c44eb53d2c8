"""The command line: ``critical-periods fit|validate|test|predict``, ``study`` and ``kinetics``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from critical_periods.cli.parser import Parser
from critical_periods.core.errors import ERROR_PREFIX, UserError

# What a command needs is imported when it runs: Lightning alone takes seconds.


def _lightning(argv: list[str]) -> int:
    from critical_periods.runs.lightning_cli import CLI

    CLI(argv)
    return 0


def _study(argv: list[str]) -> int:
    from critical_periods.cli.study import study

    return study(argv[1:])


def _kinetics(argv: list[str]) -> int:
    from critical_periods.cli.kinetics import kinetics

    return kinetics(argv[1:])


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "fit": (_lightning, "train a network, as a config describes"),
    "validate": (_lightning, "measure a trained network on the validation set"),
    "test": (_lightning, "measure a trained network on the test set"),
    "predict": (_lightning, "send the test set through a trained network"),
    "study": (_study, "train many networks that share their beginnings, and draw their curve"),
    "kinetics": (_kinetics, "make videos ready to train on"),
}
"""For each command what runs it, given the words of the command line, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; every mistake of its user ends in one sentence and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_not_a_tip)
    try:
        if argv[:1] in (["-h"], ["--help"]):
            _parser().parse_args(argv)
        # Options of Lightning's may stand before its command.
        if argv and argv[0].startswith("-"):
            return _lightning(argv)
        if not argv or argv[0] not in COMMANDS:
            problem = f"unknown command {argv[0]!r}" if argv else "no command"
            raise UserError(f"{problem}; choose one of {', '.join(COMMANDS)}, or see --help.")
        return COMMANDS[argv[0]][0](argv)
    except Exception as error:
        if not _is_of_the_user(error):
            raise
        from critical_periods.runs.config_files import config_files

        text = " ".join(str(error).split())
        files = ", ".join(config_files(argv))
        where = f"{files}: " if files and files not in text else ""
        print(f"{ERROR_PREFIX}{where}{text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if "wandb" in sys.modules:
            # A second run in this process is another run there, too.
            sys.modules["wandb"].finish()


def _parser() -> Parser:
    """Of the overview of all commands; each has a parser of its own."""
    parser = Parser(
        prog="critical-periods",
        description="Put a deficit into a network's training, take it out again, measure what "
        "stays.",
        epilog="Each has more to say, such as `critical-periods study --help`.",
    )
    commands = parser.add_subparsers(title="commands", metavar="|".join(COMMANDS))
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def _is_of_the_user(error: Exception) -> bool:
    """Whether an error is a sentence about a mistake: ours, or Lightning's about its settings."""
    return isinstance(error, UserError) or type(error).__name__ == "MisconfigurationException"


def _is_not_a_tip(record: logging.LogRecord) -> bool:
    """Whether a record is not one of Lightning's advertisements."""
    return "Tip:" not in str(record.msg)
