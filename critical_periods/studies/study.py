"""A study file: which runs to make of which base run."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from critical_periods.errors import UserError, near

Tree = dict[str, Any]

_FIELDS = ("base", "deficit", "windows", "seeds", "set", "vary")
_REMOVALS = ("removal", "epochs_after")
_ONSETS = ("onset", "length", "epochs")


class Window(NamedTuple):
    """A run's deficit and length: in epochs onset … removal - 1 of ``epochs``; onset = removal: none."""

    onset: int
    removal: int
    epochs: int


@dataclass(frozen=True)
class Study:
    """One base run, one deficit, many windows, seeds and settings.

    Attributes:
        name: the file's name without its ending.
        base: the run's config, with ``set`` applied.
        deficit: the deficit as a config (``class_path``, ``init_args``).
        windows: the windows with a deficit, and every one's control: no deficit, as many epochs.
        seeds: one run of each window for each seed.
        variations: for each combination of varied fields, those fields and their values.
    """

    name: str
    base: Tree
    deficit: Tree
    windows: tuple[Window, ...]
    seeds: tuple[int, ...]
    variations: tuple[dict[str, Any], ...] = field(default=({},))

    def configured(self, variation: Mapping[str, Any]) -> tuple[Tree, Tree]:
        """The run's config and the deficit with the fields of a variation."""
        tree = {"deficit": copy.deepcopy(self.deficit), "base": copy.deepcopy(self.base)}
        for name, value in variation.items():
            is_deficit = name.split(".")[0] == "deficit"
            _assign(tree if is_deficit else tree["base"], name, value)
        return tree["base"], tree["deficit"]


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Its fields: ``base``, the config file of one run, beside the study file; ``deficit``;
    ``windows``, either ``{removal: [...], epochs_after: n}`` (a deficit from epoch 0 to each
    removal, then n clean epochs) or ``{onset: [...], length: n, epochs: m}`` (a deficit of n epochs
    from each onset, m epochs in all); ``seeds``; optionally ``set``, fields of the base config to
    change, and ``vary``, fields to try with each of a list of values (``deficit.…`` names a field
    of the deficit). Fields are written with dots: ``model.init_args.lr_scheduler``.

    Args:
        path: of the YAML file.
        overrides: ``field=value`` from the command line, of the study or of the base config.

    Raises:
        UserError: a file or field is missing, unknown or of the wrong form.
    """
    tree = _read(path)
    changes = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"--set {override!r} must have the form field=value.")
        first = name.split(".")[0]
        target = tree if first in _FIELDS else changes
        (_assign if target is tree else dict.__setitem__)(target, name, _parse(value, name))
    unknown = [name for name in tree if name not in _FIELDS]
    if unknown:
        raise UserError(f"{path}: unknown field {unknown[0]!r}; {near(unknown[0], _FIELDS)}")
    missing = [name for name in ("base", "deficit", "windows") if name not in tree]
    if missing:
        raise UserError(f"{path}: the field {missing[0]!r} is missing; a study needs it.")
    try:
        base = _read(path.parent / str(tree["base"]))
        for name, value in {**_mapping(tree, "set"), **changes}.items():
            _assign(base, name, value)
        return Study(
            name=path.stem,
            base=base,
            deficit=_mapping(tree, "deficit"),
            windows=_windows(_mapping(tree, "windows")),
            seeds=_whole_numbers(tree.get("seeds", [0]), "seeds"),
            variations=_variations(_mapping(tree, "vary")),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _windows(tree: Tree) -> tuple[Window, ...]:
    unknown = [name for name in tree if name not in _REMOVALS + _ONSETS]
    if unknown:
        known = _REMOVALS + _ONSETS
        raise UserError(f"unknown field 'windows.{unknown[0]}'; {near(unknown[0], known)}")
    if set(tree) == set(_REMOVALS):
        after = _whole_number(tree["epochs_after"], "windows.epochs_after", least=1)
        removals = _whole_numbers(tree["removal"], "windows.removal")
        deficits = [Window(0, removal, removal + after) for removal in removals]
    elif set(tree) == set(_ONSETS):
        length = _whole_number(tree["length"], "windows.length", least=1)
        epochs = _whole_number(tree["epochs"], "windows.epochs", least=1)
        onsets = _whole_numbers(tree["onset"], "windows.onset")
        deficits = [Window(onset, onset + length, epochs) for onset in onsets]
        late = [window for window in deficits if window.removal > epochs]
        if late:
            raise UserError(
                f"the window of windows.onset={late[0].onset} and windows.length={length} reaches "
                f"beyond the last epoch, windows.epochs={epochs}."
            )
    else:
        raise UserError(
            f"windows has {sorted(tree)}; it needs either removal and epochs_after, or onset, "
            "length and epochs."
        )
    controls = [Window(0, 0, window.epochs) for window in deficits]
    return tuple(dict.fromkeys([*deficits, *controls]))


def _variations(vary: Tree) -> tuple[dict[str, Any], ...]:
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"vary.{name} is {values!r}; it must be a list of values.")
    return tuple(
        dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())
    )


def _assign(tree: Tree, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for depth, parent in enumerate(parents):
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            where = ".".join(parents[: depth + 1])
            raise UserError(f"the field {name!r} cannot be set: {where} holds no fields.")
    tree[last] = value


def _mapping(tree: Tree, name: str) -> Tree:
    value = tree.get(name) or {}
    if not isinstance(value, dict):
        raise UserError(f"{name} is {value!r}; it must hold fields.")
    return value


def _whole_numbers(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name} is {value!r}; it must be a list of whole numbers.")
    numbers = [_whole_number(number, name) for number in value]
    return tuple(dict.fromkeys(numbers))


def _whole_number(value: Any, name: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} holds {value!r}; it must be a whole number of at least {least}.")
    return value


def _read(path: Path) -> Tree:
    if not path.is_file():
        raise UserError(f"the file {path} does not exist.")
    tree = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no fields; it must be a YAML mapping.")
    return tree


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text; here, as in the run configs, it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
