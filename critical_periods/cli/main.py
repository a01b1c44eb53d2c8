"""The command line: ``critical-periods fit|validate|test|predict``, ``study`` and ``kinetics``."""

import sys
from collections.abc import Sequence
from importlib import import_module

from critical_periods.core.errors import ERROR_PREFIX, UserError

_HELP = """usage: critical-periods COMMAND ...

Put a deficit into a network's training, take it out again, measure what stays.

  fit         train a network, as a config describes
  validate    measure a trained network on the validation set
  test        measure a trained network on the test set
  predict     run a trained network on the test set
  study       train many networks that share their beginnings, and draw their curve
  kinetics    make videos ready to train on

Each has a help of its own, such as `critical-periods study --help`."""


_COMMANDS = ("fit", "validate", "test", "predict", "study", "kinetics")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; every mistake of its user ends in one sentence and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argv[0] if argv else ""
    try:
        if first in ("-h", "--help"):
            print(_HELP)
            sys.exit(0)
        # Options of Lightning's may stand before its command.
        if first not in _COMMANDS and not first.startswith("-"):
            problem = f"unknown command {first!r}" if argv else "no command"
            raise UserError(f"{problem}; choose one of {', '.join(_COMMANDS)}, or see --help.")
        # What a command needs is imported when it runs: Lightning alone takes seconds.
        if first in ("study", "kinetics"):
            command = import_module(f"critical_periods.cli.{first}")
            return getattr(command, first)(argv[1:])
        from critical_periods.runs.lightning_cli import CLI

        CLI(argv)
        return 0
    except Exception as error:
        # Lightning's own about its settings are sentences, too.
        if not isinstance(error, UserError) and type(error).__name__ != "MisconfigurationException":
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
