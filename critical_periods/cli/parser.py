"""The parser of the commands that are not Lightning's."""

from __future__ import annotations

import argparse
from typing import NoReturn

from critical_periods.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence that says where help is."""

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong with the words of the command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help.")
