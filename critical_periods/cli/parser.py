"""The parser of the commands that are not Lightning's."""

import argparse
from typing import NoReturn

from critical_periods.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence that says where help is."""

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong with a command line as a :class:`UserError`."""
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help.")
