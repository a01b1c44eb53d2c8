"""The command line: ``critical-periods fit|validate|test|predict``, ``study`` and ``kinetics``."""

import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from critical_periods.core.errors import ERROR_PREFIX, UserError
from critical_periods.core.files import no_space
from critical_periods.core.processes import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    exit_code,
    open_standard_streams,
    raising_terminated,
)

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
    """Runs a command; every mistake of its user ends in one sentence and exit code 2.

    Returns:
        0; 1 where segments of a study are not done; 2 for a mistake, or for a full disk; 128 and
        the number of the signal where one ended it: 130 (Ctrl-C), 141 (whoever read its output is
        gone) or 143 (SIGTERM).
    """
    open_standard_streams()
    ends_process = argv is None
    if ends_process:
        # Weights & Biases keeps a log, of which Python shows a traceback a line on a full disk.
        logging.raiseExceptions = False
    argv = list(sys.argv[1:] if argv is None else argv)
    # Of an error that Python shows, and of what ends a run of Weights & Biases until it is known.
    code = 1
    try:
        code = _run(argv)
        sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit, Terminated) as ended:
        code = exit_code(ended)
        if ends_process and code == INTERRUPTED:
            # Whoever presses Ctrl-C again does not want to wait for what is still to be tidied up.
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        if code not in (INTERRUPTED, TERMINATED):
            raise
        # Lightning kills the first process where one that it has started does not end as if all
        # were well; the first may still have a checkpoint to write.
        if os.environ.get("LOCAL_RANK", "0") != "0":
            code = 0
        else:
            what = "Ctrl-C" if code == INTERRUPTED else "SIGTERM"
            kept = "" if isinstance(ended, SystemExit) else str(ended)
            kept = kept or "what was saved and logged until then is kept."
            print(f"critical-periods: stopped by {what}; {kept}", file=sys.stderr)
    except Exception as error:
        if _is_unread(error):
            code = 128 + signal.SIGPIPE
        else:
            sentence = _sentence(error, argv)
            if sentence is None:
                raise
            code = 2
            print(f"{ERROR_PREFIX}{sentence}", file=sys.stderr)
    finally:
        if "wandb" in sys.modules:
            from critical_periods.runs.tracking import finish_all

            # A second run in this process is another run there, too.
            finish_all(code)
        if ends_process and code == INTERRUPTED:
            # From here on it would end in a traceback of what runs as Python ends.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _run(argv: list[str]) -> int:
    first = argv[0] if argv else ""
    if first in ("-h", "--help"):
        print(_HELP)
        sys.exit(0)
    # Options of Lightning's may stand before its command.
    if first not in _COMMANDS and not first.startswith("-"):
        problem = f"unknown command {first!r}" if argv else "no command"
        raise UserError(f"{problem}; choose one of {', '.join(_COMMANDS)}, or see --help.")
    # What a command needs is imported when it runs: Lightning alone takes seconds.
    if first == "kinetics":
        return import_module("critical_periods.cli.kinetics").kinetics(argv[1:])
    with raising_terminated():
        if first == "study":
            return import_module("critical_periods.cli.study").study(argv[1:])
        from critical_periods.runs.lightning_cli import CLI

        CLI(argv)
        return 0


def _sentence(error: Exception, argv: Sequence[str]) -> str | None:
    """What to tell of a mistake or a full disk; ``None`` of an error that is neither."""
    text = no_space(error)
    # Lightning's own about its settings are sentences, too.
    if isinstance(error, UserError) or type(error).__name__ == "MisconfigurationException":
        text = " ".join(str(error).split())
    elif text is None:
        return None
    from critical_periods.runs.config_files import config_files

    files = ", ".join(config_files(argv))
    return f"{files}: {text}" if files and files not in text else text


def _is_unread(error: Exception) -> bool:
    """Whether nobody reads this process's output any more; if so, it goes nowhere from now on."""
    # Pipes of other kinds break, too; of one that is not read, the system says so.
    unread = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    if not isinstance(error, BrokenPipeError) or not unread:
        return False
    for stream in unread:
        # What is left in its buffer would else fail again as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    # Not a file of the system, as in a notebook.
    except OSError:
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))
