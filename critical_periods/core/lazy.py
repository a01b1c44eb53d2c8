"""Packages whose names are loaded when they are first used (PEP 562)."""

import ast
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(
    package: str, file: str, elsewhere: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What an ``__init__.py`` needs to give its names without importing their modules.

    The names are those that the file imports for type checkers, from modules of the package or of
    a room below, under ``if TYPE_CHECKING:``, so they stand in one place and every editor knows
    their types. A name must not be that of a module beside it, which would take its place once it
    is imported.

    Args:
        package: the package's ``__name__``.
        file: its ``__file__``, in whose source the imports are found.
        elsewhere: more names, with the module of each, that type checkers do not see: those that
            have moved to a room which the package must not depend on.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.

    Example:
        >>> import critical_periods.deficits as deficits
        >>> deficits.Blur.__module__, "Blur" in dir(deficits), "Blur" in deficits.__all__
        ('critical_periods.deficits.blur', True, True)
    """
    modules = dict(elsewhere or {})
    for statement in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for line in statement.body:
                assert isinstance(line, ast.ImportFrom)
                module = f"{package}.{line.module}" if line.level else str(line.module)
                modules |= {alias.name: module for alias in line.names}
    names = sorted(modules)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get, lambda: names, names
