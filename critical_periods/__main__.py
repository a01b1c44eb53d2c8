"""``python -m critical_periods``: the same as the command ``critical-periods``."""

from __future__ import annotations

import sys

from critical_periods import cli


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
