"""``python -m critical_periods``: the same as the command ``critical-periods``."""

from __future__ import annotations

import sys

from critical_periods.cli.main import main as run


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
