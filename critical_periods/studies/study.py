"""A study file: which runs to make of which base run."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from critical_periods.configs import parse_yaml, read_yaml
from critical_periods.errors import UserError, near

Tree = dict[str, Any]

_FIELDS = ("base", "deficit", "windows", "seeds", "set", "vary")
_REMOVALS = ("removal", "epochs_after")
_ONSETS = ("onset", "length", "epochs")


class Window(NamedTuple):
    """A run of ``epochs`` with a deficit from epoch onset to removal - 1; onset = removal: none."""

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
        base_file: where the base config was read.
    """

    name: str
    base: Tree
    deficit: Tree
    windows: tuple[Window, ...]
    seeds: tuple[int, ...]
    variations: tuple[dict[str, Any], ...] = field(default=({},))
    base_file: Path = Path()

    def configured(self, variation: Mapping[str, Any]) -> tuple[Tree, Tree]:
        """The run's config, with a list of callbacks, and the deficit, both with a variation.

        Raises:
            UserError: a field cannot be set, or the callbacks are not a list of classes.
        """
        tree = {"deficit": copy.deepcopy(self.deficit), "base": copy.deepcopy(self.base)}
        for name, value in variation.items():
            is_deficit = name.split(".")[0] == "deficit"
            _assign(tree if is_deficit else tree["base"], name, copy.deepcopy(value))
        base = tree["base"]
        base["trainer"] = _mapping(base, "trainer")
        base["trainer"]["callbacks"] = _callbacks(base["trainer"].get("callbacks"))
        return base, tree["deficit"]


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
    tree = read_yaml(path)
    changes = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise UserError(f"--set {override!r} must have the form field=value.")
        first, _, rest = name.partition(".")
        parsed = parse_yaml(value, f"--set {override!r}")
        if first in ("set", "vary") and rest:
            # What these hold is named with dots itself.
            tree[first] = _mapping(tree, first) | {rest: parsed}
        elif first in _FIELDS:
            _assign(tree, name, parsed)
        else:
            changes[name] = parsed
    unknown = [name for name in tree if name not in _FIELDS]
    if unknown:
        raise UserError(f"{path}: unknown field {unknown[0]!r}; {near(unknown[0], _FIELDS)}")
    missing = [name for name in ("base", "deficit", "windows") if name not in tree]
    if missing:
        raise UserError(f"{path}: the field {missing[0]!r} is missing; a study needs it.")
    try:
        base_file = path.parent / str(tree["base"])
        base = read_yaml(base_file)
        for name, value in {**_mapping(tree, "set"), **changes}.items():
            _assign(base, name, value)
        deficit = _mapping(tree, "deficit")
        if "class_path" not in deficit:
            raise UserError("deficit.class_path is missing; it names a deficit, such as Blur.")
        return Study(
            name=path.stem,
            base=base,
            deficit=deficit,
            windows=_windows(_mapping(tree, "windows")),
            seeds=_whole_numbers(tree.get("seeds", [0]), "seeds"),
            variations=_variations(_mapping(tree, "vary")),
            base_file=base_file,
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


# What a study itself says of its runs, and where.
_SETTLED = {"seed_everything": "seeds", "trainer.max_epochs": "windows"}


def _variations(vary: Tree) -> tuple[dict[str, Any], ...]:
    for name, values in vary.items():
        if name in _SETTLED:
            raise UserError(
                f"vary.{name} changes nothing in a study; set {_SETTLED[name]} instead."
            )
        if not isinstance(values, list) or not values:
            raise UserError(f"vary.{name} is {values!r}; it must be a list of values.")
    return tuple(
        dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())
    )


def _assign(tree: Tree, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for depth, parent in enumerate(parents):
        inner: Any = tree.get(parent)
        if inner is None:
            inner = tree[parent] = {}
        if not isinstance(inner, dict):
            where = ".".join(parents[: depth + 1])
            raise UserError(f"the field {name!r} cannot be set: {where} holds no fields.")
        tree = inner
    tree[last] = value


def _callbacks(value: Any) -> list[Tree]:
    """The callbacks of a config, each with a ``class_path``; one alone or a bare name will do."""
    found = [] if value is None else value if isinstance(value, list) else [value]
    callbacks = [{"class_path": one} if isinstance(one, str) else one for one in found]
    for callback in callbacks:
        if not isinstance(callback, dict) or not isinstance(callback.get("class_path"), str):
            raise UserError(f"trainer.callbacks holds {callback!r}; each one needs a class_path.")
    return callbacks


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
