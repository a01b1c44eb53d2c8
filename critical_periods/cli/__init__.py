"""The command line, and every mistake of its user told in one sentence."""

from critical_periods.cli.main import main as main
