"""The command line: ``critical-periods fit|validate|test|predict``, ``study`` and ``kinetics``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from critical_periods.core.errors import ERROR_PREFIX, UserError
from critical_periods.runs.lightning_cli import CLI, SUBCOMMANDS, config_files

COMMANDS = (*SUBCOMMANDS, "study", "kinetics")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; every mistake of its user ends in one sentence and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_advertisement)
    try:
        if not words or (words[0] not in COMMANDS and not words[0].startswith("-")):
            problem = f"unknown command {words[0]!r}" if words else "no command"
            raise UserError(f"{problem}; choose one of {', '.join(COMMANDS)}, or see --help.")
        if words[0] == "study":
            from critical_periods.cli.study import study

            return study(words[1:])
        if words[0] == "kinetics":
            from critical_periods.cli.kinetics import kinetics

            return kinetics(words[1:])
        CLI(words)
    except (UserError, MisconfigurationException) as error:
        text = " ".join(str(error).split())
        files = ", ".join(config_files(words))
        where = f"{files}: " if files and files not in text else ""
        print(f"{ERROR_PREFIX}{where}{text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if "wandb" in sys.modules:
            # A second run in this process is another run there, too.
            sys.modules["wandb"].finish()
    return 0


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in str(record.msg)
