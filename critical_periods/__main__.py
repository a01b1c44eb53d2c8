"""``python -m critical_periods``: the same as the command ``critical-periods``."""

import sys

from critical_periods.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
